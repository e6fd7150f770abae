"""What the pages of the chapters beyond the paper share: published rows, and plain tables."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reproduction import paths
from reproduction.pages.tables import PLUMBING_CHECKS, Html, _td, _wrap
from selm.errors import InputError

if TYPE_CHECKING:
    pass

OBJECTIVES = {"contrast": "by contrast with the map image", "distillation": "by distilling GPS-SELM"}
_PERCENT = ("top1", "top5")


def published(profiles: Sequence[str], name: str, folder: Path | None = None) -> pd.DataFrame | None:
    """The committed results ``NAME.csv`` of the first of these profiles that has them, or None."""
    where = paths.repository() / "data" / "results" if folder is None else folder
    for profile in profiles:
        file = where / profile / f"{name}.csv"
        if file.exists():
            return pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str})
    return None


def printed(name: str, folder: Path | None = None) -> pd.DataFrame:
    """A table of another paper as printed, from ``data/paper/NAME.csv``."""
    file = (paths.repository() / "data" / "paper" if folder is None else folder) / f"{name}.csv"
    if not file.exists():
        raise InputError(f"{file}: no such table")
    return pd.read_csv(file)


def simple_table(head: Sequence[str], sections: Mapping[str, Sequence[Sequence[str]]], caption: str = "") -> Html:
    """Rows of ready cells under headings; a section named "" has no heading. Cells may hold HTML."""
    top = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
    body = ""
    for section, rows in sections.items():
        if section and rows:
            body += f'<tr class="section"><td colspan="{len(head)}">{html.escape(section)}</td></tr>'
        for row in rows:
            body += "<tr>" + f"<td>{row[0]}</td>" + "".join(_td(cell) for cell in row[1:]) + "</tr>"
    return Html(_wrap(caption, top, body))


def text_cell(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def spread(values: pd.Series[float], digits: int, scale: float = 1.0) -> str:
    """mean ± sd of some trials as HTML; the mean alone for one trial, "–" for none."""
    numbers = values.dropna().to_numpy(np.float64) * scale
    if not len(numbers):
        return "–"
    text = text_cell(float(numbers.mean()), digits)
    return text + (f"<small> ± {text_cell(float(numbers.std(ddof=1)), digits)}</small>" if len(numbers) > 1 else "")


def heading(profile: str) -> str:
    return f"{profile}: plumbing check, it runs, no result" if profile in PLUMBING_CHECKS else profile
