"""What the book's tables, pictures and folded parts are made of: HTML without scripts or fonts, in the page's own
colours.

Nothing is loaded from the network.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLUMBING_CHECKS = ("smoke", "demo")  # profiles that show that everything runs: their numbers carry no verdict
METRIC_NAMES = {"mse": "MSE", "top1": "top-1", "top5": "top-5", "ap50": "AP50"}
# What the profiles are to a reader.
PROFILE_WORDS = {
    "japan-cpu": "small encoder, Japan", "japan-gpu": "ResNet-50, Japan, short run", "japan": "ResNet-50, Japan",
    "paper": "the paper's scale", "demo": "demo", "smoke": "smallest test",
}  # fmt: skip
DEMO = "demo: runs everywhere, its numbers mean nothing"
_LINE = "1px solid rgba(128,128,128,.5)"
# One rule a line; colours are inherited, so that tables read on light and dark themes and on paper.
_RULES = f"""
.selm-scroll {{overflow-x: auto; margin: 1em 0; --page: var(--pst-color-background, Canvas)}}
.selm-scroll {{container-type: inline-size}}
.selm-scroll {{background: linear-gradient(to left, var(--page) 1.5em, transparent) right / 3em 100% no-repeat local,
  linear-gradient(to left, rgba(128,128,128,.55), transparent) right / 1em 100% no-repeat scroll}}
table.selm {{border-collapse: collapse; font-size: .82em; line-height: 1.25; width: auto; margin: 0}}
table.selm {{font-variant-numeric: tabular-nums}}
table.selm caption {{caption-side: top; text-align: left; font-weight: 600; padding-bottom: .4em; color: inherit}}
table.selm caption span {{position: sticky; left: 0; display: inline-block}}
table.selm caption span {{width: max-content; max-width: 100cqi}}
table.selm th, table.selm td {{border: 0; padding: .22em .5em; text-align: right; vertical-align: baseline}}
table.selm th, table.selm td {{background: none; color: inherit; white-space: nowrap}}
table.selm th:first-child, table.selm td:first-child {{text-align: left; position: sticky; left: 0; z-index: 1}}
table.selm th:first-child, table.selm td:first-child {{background: var(--page); white-space: normal; min-width: 8em}}
@container (max-width: 30em) {{
  table.selm th, table.selm td {{padding: .22em .2em}}
  table.selm thead th {{white-space: normal}}
  table.selm th:first-child, table.selm td:first-child {{min-width: 5em}}
  table.selm .selm-tag {{padding: 0 .3em}}
}}
table.selm thead tr:last-child th {{border-bottom: {_LINE}}}
table.selm thead th {{font-weight: 600; vertical-align: bottom}}
table.selm thead th.group {{text-align: center}}
table.selm .edge {{border-left: {_LINE}}}
table.selm tbody tr {{background: none}}
table.selm tr.section td {{font-weight: 600; text-align: left; padding-top: .8em; border-bottom: {_LINE}}}
table.selm small {{opacity: .85; font-size: .84em; font-weight: 400}}
table.selm .none {{opacity: .6}}
table.selm .best, table.selm tr.own td {{font-weight: 700}}
table.selm .wide {{text-align: center}}
table.selm td.words {{text-align: left; white-space: normal; min-width: 9em}}
.selm-tag {{display: inline-block; border: 1px solid currentColor; border-radius: .7em; padding: 0 .5em}}
.selm-tag {{font-size: .8em; font-weight: 400; white-space: nowrap}}
.selm-agree {{color: #1b7837}}
.selm-against {{color: #a34a00}}
html[data-theme=dark] .selm-agree {{color: #7fd08f}}
html[data-theme=dark] .selm-against {{color: #f5a65b}}
.selm-words {{display: block; text-align: left; white-space: normal; overflow-wrap: anywhere}}
.selm-foot {{font-size: .8em; opacity: .9; line-height: 1.4; margin: .4em 0 1em}}
.selm-foot code {{white-space: normal; overflow-wrap: anywhere}}
.selm-figure {{margin: 1.2em 0}}
.selm-figure img {{max-width: 100%; height: auto; background: #fff; border-radius: .2em}}
.selm-figure figcaption {{font-size: .85em; font-weight: 400; line-height: 1.4; margin-top: .3em; text-align: left}}
.selm-fold {{border: {_LINE}; border-radius: .3em; padding: .4em .8em; margin: .8em 0}}
.selm-fold > summary {{cursor: pointer; font-weight: 600}}
.selm-demo {{border-left: .5em solid #b8860b}}
.selm-demo > summary {{background: #b8860b; color: #000; padding: .1em .6em; border-radius: .2em}}
.selm-answer {{font-size: 1.1em; border-left: .3em solid #D55E00; padding: .1em 0 .1em .9em; margin: 1em 0}}
"""
CSS = f"<style>{_RULES}</style>"
_TONES = {"match": "selm-agree", "better": "selm-agree", "differs": "selm-against", "worse": "selm-against"}


@dataclass(frozen=True)
class Html:
    """A piece of HTML that notebooks show as it is."""

    text: str

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:  # notebooks keep this beside the HTML: not all of it twice
        return f"<{len(self.text):,} characters of HTML>"


def tag(word: str) -> str:
    """A verdict or status in a frame, in the colour of what it says."""
    return f'<span class="selm-tag {_TONES.get(word, "")}">{html.escape(word)}</span>'


def metric_number(value: float, metric: str, sign: bool = False) -> str:
    """A number of a metric, with as many digits as the metric needs."""
    digits = 3 if metric == "mse" else 1
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def stack(*parts: Html) -> Html:
    """Pieces of a page one below the other."""
    return Html("\n".join(part.text for part in parts))


def prose(text: str, kind: str = "") -> Html:
    """A paragraph of plain words, in which ``**…**`` is strong and `…` code; `kind` is its CSS class."""
    return Html(f'{CSS}<p class="{kind}">{_marked(text)}</p>')


def _marked(text: str) -> str:
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", strong)


def fold(title: str, *parts: Html, kind: str = "", open: bool = False) -> Html:
    """Parts of a page that open, and close, at a click on their title."""
    inside = stack(*parts).text.replace(CSS, "")  # once is enough
    start = f'<details class="selm-fold {kind}"{" open" if open else ""}>'
    return Html(f"{CSS}{start}<summary>{html.escape(title)}</summary>\n{inside}</details>")


def this_run(profile: str, *parts: Html, title: str = "", open: bool = False) -> Html:
    """What the page's own run gives, folded; under a coloured banner where its numbers mean nothing.

    title: of one run of several.  open: shown at once, on the page that is about such runs.
    """
    check = profile in PLUMBING_CHECKS
    heading = DEMO if check else f"this run: {profile_heading(profile)}"
    return fold(f"{title}, {heading}" if title else heading, *parts, kind="selm-demo" if check else "", open=open)


def picture(figure: Figure, caption: str, alt: str, *, profile: str = "") -> Html:
    """A figure with its caption and the text for those who do not see it; the figure is closed.

    profile: whose numbers it shows; a watermark says so where they mean nothing.  The page numbers its captions.
    """
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if not caption or not alt:
        raise ValueError("picture: a caption and a text in the picture's place are needed")
    if profile in PLUMBING_CHECKS:
        figure.text(0.5, 0.5, "demo: no result", rotation=25, fontsize=44, color="#b8860b", alpha=0.22, ha="center",
                    va="center", zorder=50)  # fmt: skip
    # drawn once: `savefig` draws twice where a layout is constrained
    if (dpi := plt.rcParams["savefig.dpi"]) != "figure":
        figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    stream, image = io.BytesIO(), Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    image.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Html(
        f'{CSS}<figure class="selm-figure"><img src="{source}" alt="{html.escape(alt)}">'
        f"<figcaption>{_marked(caption)}</figcaption></figure>"
    )


def td(text: str, *kinds: str, span: int = 1) -> str:
    """One cell; `kinds` are its CSS classes. An empty one, "–", is shown paler."""
    names = " ".join(kind for kind in (*kinds, "none" if text == "–" else "") if kind)
    return f'<td class="{names}"' + (f' colspan="{span}">' if span > 1 else ">") + f"{text}</td>"


def html_table(caption: str, head: str, body: str) -> str:
    """A table from the rows of its head and of its body, with the rules of the page."""
    title = f"<caption><span>{html.escape(caption)}</span></caption>" if caption else ""
    inside = f"{title}<thead>{head}</thead><tbody>{body}</tbody>"
    # the index of the book's search drops tags: without white space words of neighbouring cells would be one
    inside = inside.replace("><", ">\n<").replace("<br>", "<br>\n")
    return f'{CSS}<div class="selm-scroll"><table class="selm">{inside}</table></div>'


def simple_table(head: Sequence[str], sections: Mapping[str, Sequence[Sequence[str]]], caption: str = "") -> Html:
    """Rows of ready cells under headings; a section named "" has no heading. Cells may hold HTML."""
    top = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
    body = ""
    for section, rows in sections.items():
        if section and rows:
            body += f'<tr class="section"><td colspan="{len(head)}">{html.escape(section)}</td></tr>'
        for row in rows:
            body += "<tr>" + f"<td>{row[0]}</td>" + "".join(td(cell) for cell in row[1:]) + "</tr>"
    return Html(html_table(caption, top, body))


def fixed(value: float, digits: int) -> str:
    """A number with so many digits, "–" for none."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def spread(values: pd.Series[float], digits: int, scale: float = 1.0) -> str:
    """mean ± sd of some trials as HTML; the mean alone for one trial, "–" for none."""
    numbers = values.dropna().to_numpy(np.float64) * scale
    if not len(numbers):
        return "–"
    text = fixed(float(numbers.mean()), digits)
    return text + (f"<small> ± {fixed(float(numbers.std(ddof=1)), digits)}</small>" if len(numbers) > 1 else "")


def profile_heading(profile: str) -> str:
    """A profile's name, with a warning where its numbers are no result."""
    return DEMO if profile in PLUMBING_CHECKS else PROFILE_WORDS.get(profile, profile)
