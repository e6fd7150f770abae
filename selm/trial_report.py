"""What a trial (`selm.trial`) found: as text, and as one HTML page that loads nothing, with a map of where it errs."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selm.embedding.coordinates import wrapped
from selm.files import check_target, write_text
from selm.probes.claims import Comparison

SPLITS = ("random", "blocks")
WITH = "embedding, colours, coordinates"  # the way with all
MOST = 1.3  # of an axis: a way much worse than the mean leaves the picture
_STYLE = """
.selm-trial { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 0 1rem }
.selm-trial .verdict { font-size: 1.2rem; border-left: 4px solid #0b62a8; padding-left: .8rem }
.selm-trial .scroll { overflow-x: auto }
.selm-trial table { border-collapse: collapse; width: 100% }
.selm-trial th, .selm-trial td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #d0d0d0 }
.selm-trial td + td { font-variant-numeric: tabular-nums; white-space: nowrap }
.selm-trial svg { width: 100%; height: auto; background: #fff }
.selm-trial figcaption, footer.selm-trial { color: inherit; font-size: .9rem }
body.selm-page { color: #1a1a1a; background: #fff }
@media (prefers-color-scheme: dark) {
  body.selm-page { color: #e8e8e8; background: #181818 }
}
"""
_BLUE, _GREY, _ORANGE = np.array([0x0B, 0x62, 0xA8]), np.array([0xD0, 0xD0, 0xD0]), np.array([0xC8, 0x4A, 0x0B])
_WIDTH, _LABELS = 860.0, 250.0  # of figures; of the names in the figure of scores


@dataclass(frozen=True, repr=False)
class Trial:
    """What `try_embedding` found.

    `scores` has a row a way of predicting, with columns `way` and, for each of the splits ``random`` and ``blocks``,
    the score and its 95 % interval (``random_low``, …): for regression the share of the variance that is left (0 is
    perfect, 1 is what the mean scores), for classification the share of rows that is right. `comparison` is the one
    that the verdict is of, in the same units. `places` has the rows that were tried: `row` as the file counts, `lat`,
    `lon`, `truth`, `predicted` and `error` of the way with all, under blocks. `facts` say what was done to what.
    """

    table: str
    target: str
    task: str
    scores: pd.DataFrame
    comparison: Comparison
    verdict: str
    block_km: float
    facts: tuple[str, ...]
    places: pd.DataFrame

    def table_rows(self) -> list[list[str]]:
        """The scores in words: the way, and its score and interval under random folds and under blocks."""
        return [
            [str(row["way"]), *(f"{row[s]:.3f} ({row[s + '_low']:.3f} to {row[s + '_high']:.3f})" for s in SPLITS)]
            for row in self.scores.to_dict("records")
        ]

    def save(self, path: str | Path) -> Path:
        """Write the report: one HTML file that loads nothing."""
        path = check_target(path, (".html",))
        write_text(path, page(self))
        return path

    def _repr_html_(self) -> str:
        return body(self, heading=3)

    def __repr__(self) -> str:
        heads = ["", "random folds", f"blocks of {self.block_km:g} km"]
        rows = self.table_rows()
        wide = max(len(row[0]) for row in rows)
        lines = [f"{way:{wide}}  {random:23}  {blocked}" for way, random, blocked in [heads, *rows]]
        return "\n".join([f"{self.target}: {unit(self.task)}", *lines, "", self.verdict, "", *self.facts])


def unit(task: str) -> str:
    """What a score is."""
    if task == "regression":
        return "share of the variance that is left; 0 is perfect, 1 is no better than the mean"
    return "share of rows whose class is right; 1 is perfect"


def page(trial: Trial) -> str:
    """The whole document."""
    title = escape(f"Is an embedding worth it for {trial.target}?")
    made = f"{escape(trial.table)}; selm {version('selm')}, {datetime.date.today().isoformat()}."
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'</head><body class="selm-page">\n{body(trial)}\n'
        f'<footer class="selm-trial">{made}</footer>\n</body></html>\n'
    )


def body(trial: Trial, heading: int = 1) -> str:
    """The same as part of a page, its headings from some level on."""
    first, second = f"h{heading}", f"h{heading + 1}"
    numbers = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in trial.table_rows())
    return f"""<div class="selm-trial"><style>{_STYLE}</style>
<{first}>Is an embedding worth it for {escape(trial.target)}?</{first}>
<p class="verdict">{escape(trial.verdict)}</p>
<figure>{scores_figure(trial)}
<figcaption>{escape(unit(trial.task).capitalize())}. Filled: under blocks of {trial.block_km:g} km; hollow: under random
folds. Lines are 95 % intervals, from draws of whole blocks{_beyond(trial)}.</figcaption></figure>
<div class="scroll"><table><thead><tr><th>predicted from</th><th>random folds</th><th>blocks of
{trial.block_km:g} km</th></tr></thead><tbody>{numbers}</tbody></table></div>
<{second}>Where it errs</{second}>
<figure>{error_map(trial)}
<figcaption>{escape(_legend(trial))}</figcaption></figure>
<{second}>How it was tried</{second}>
<ul>{"".join(f"<li>{escape(fact)}</li>" for fact in trial.facts)}</ul>
<p>Every way has the same places, folds and linear probe ({_probe(trial.task)}); the nearest places and the mean stand
for themselves. <em>coordinates</em> is a smooth field of them; <em>colours</em> are shares of 64 colours in the map
images that the embedding is made from. The verdict compares <em>{escape(WITH)}</em> with the same without the
embedding, under blocks: a question that was fixed beforehand.</p>
</div>"""


def _probe(task: str) -> str:
    return "ridge regression, its penalty from the training folds" if task == "regression" else "logistic regression"


def _legend(trial: Trial) -> str:
    if trial.task == "classification":
        said = "blue where its class was right, orange where not"
    else:
        said = f"blue where {trial.target} was predicted too low, orange where too high, the stronger the more"
    return f"Each tested place under blocks, predicted from {WITH}: {said}."


def _beyond(trial: Trial) -> str:
    ends = trial.scores[[f"{split}_high" for split in SPLITS]].to_numpy()
    return f"; what is above {MOST:g} is drawn there" if ends.max() > MOST else ""


def scores_figure(trial: Trial) -> str:
    """A line a way: its score under both splits, with intervals."""
    table = trial.scores
    ends = table[[f"{split}{end}" for split in SPLITS for end in ("_low", "_high")]].to_numpy()
    low, high = min(0.0, float(ends.min())), min(MOST, max(1.0, float(ends.max())))
    height = 40 + 30 * len(table)

    def x(value: float) -> float:
        return _LABELS + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - _LABELS - 20)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {height}" role="img" font-family="system-ui, sans-serif" font-size="13">'
        f"<title>Scores of all ways of predicting {escape(trial.target)}</title>"
    ]
    for tick in np.linspace(0, 1, 6):
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{height - 24}" stroke="#ddd"/>'
            f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{tick:.1f}</text>'
        )
    for number, row in enumerate(table.to_dict("records")):
        y = 24 + 30 * number
        name = escape(row["way"])
        parts.append(f'<text x="{_LABELS - 12:g}" y="{y + 4}" text-anchor="end" fill="#1a1a1a">{name}</text>')
        for split, shift, fill in (("random", -5, "#fff"), ("blocks", 5, "#0b62a8")):
            at, a, b = (x(row[f"{split}{end}"]) for end in ("", "_low", "_high"))
            parts.append(
                f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{y + shift}" y2="{y + shift}" stroke="#0b62a8"/>'
                f'<circle cx="{at:.1f}" cy="{y + shift}" r="4" fill="{fill}" stroke="#0b62a8" stroke-width="1.5"/>'
            )
    return "".join(parts) + "</svg>"


def error_map(trial: Trial) -> str:
    """The tested places, north up, coloured by their error; one that is pointed at says its row and numbers."""
    table = trial.places
    middle = np.radians(table["lat"].mean())
    east = wrapped(table["lon"].to_numpy() - table["lon"].iloc[0]) * np.cos(middle)
    north = table["lat"].to_numpy()
    span = max(float(np.ptp(east)), float(np.ptp(north)), 1e-6)
    scale = min((_WIDTH - 40) / max(float(np.ptp(east)), 1e-9), 560 / max(float(np.ptp(north)), 1e-9), 820 / span)
    left = (_WIDTH - scale * float(np.ptp(east))) / 2
    height = scale * float(np.ptp(north)) + 70
    x, y = left + (east - east.min()) * scale, 20 + (north.max() - north) * scale
    radius = float(np.clip(60 / np.sqrt(len(table)), 2, 5))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="13">'
        f"<title>Map of errors in {escape(trial.target)}</title>"
    ]
    colours = _colours(trial)
    for number in np.argsort(_strength(trial)).tolist():  # the worst on top
        row = table.iloc[number]
        truth, predicted = escape(_shown(row["truth"])), escape(_shown(row["predicted"]))
        parts.append(
            f'<circle cx="{x[number]:.1f}" cy="{y[number]:.1f}" r="{radius:.1f}" fill="{colours[number]}" '
            f'stroke="#fff" stroke-width=".5">'
            f"<title>row {int(row['row'])}: {truth}, predicted {predicted}</title></circle>"
        )
    km = scale / 111.2  # pixels of one
    bar = next((one for one in (500, 200, 100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05) if one * km < 200), 0.02)
    parts.append(
        f'<path d="M20 {height - 28:.0f} h{bar * km:.1f}" stroke="#1a1a1a" stroke-width="2"/>'
        f'<text x="20" y="{height - 10:.0f}" fill="#1a1a1a">{bar:g} km</text>'
    )
    return "".join(parts) + "</svg>"


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _strength(trial: Trial) -> NDArray[np.float64]:
    """Errors from −1 to 1; of classes 0 is right and 1 wrong."""
    error = trial.places["error"].to_numpy(np.float64)
    if trial.task == "classification":
        return error
    return np.clip(error / max(float(pd.Series(np.abs(error)).quantile(0.95)), 1e-12), -1, 1)


def _colours(trial: Trial) -> list[str]:
    strength = _strength(trial)
    start = _BLUE if trial.task == "classification" else _GREY
    low = start + (_BLUE - start) * np.clip(-strength, 0, 1)[:, None]
    mixed = low + (_ORANGE - low) * np.clip(strength, 0, 1)[:, None]
    return ["#" + bytes(colour).hex() for colour in mixed.round().astype(np.uint8)]
