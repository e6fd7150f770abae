"""Tables of the book: what is shown, and what must never be."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from made_up_results import results

from reproduction import report
from reproduction.pages import tables
from reproduction.pages.html import Html


def text_of(page: Html) -> str:
    return re.sub(r"<[^>]+>", " ", page.text.split("</style>")[1])


def test_the_page_says_reduced_scale_once_and_shows_every_number() -> None:
    out = report.compare(1, {"reference": results(), "this run": None}, target="l01", split="random")
    page = tables.comparison_table(out, caption="Table 1 <random>")
    assert page.text.count("reduced scale") == 1
    assert "match" not in text_of(page)
    assert "Table 1 &lt;random&gt;" in page.text
    shown = text_of(page)
    assert "0.400" in shown and "± 0.030" in shown and "Δ +0.110" in shown and "n = 10" in shown
    assert "k-NN (5) on coordinates" in shown
    assert "not run" in shown
    assert page._repr_html_() == page.text
    # each row fills the same number of columns
    body = page.text.split("<tbody>")[1]
    widths = {
        sum(int(span or 1) for span in re.findall(r'<td[^>]*?(?:colspan="(\d+)")?>', row))
        for row in body.split("</tr>")
        if "<td" in row
    }
    assert widths == {1 + 3 * 3}


def test_blocks_are_not_the_papers_split() -> None:
    out = report.compare(1, {"reference": results("japan", split="blocks")}, target="l01", split="blocks")
    shown = text_of(tables.comparison_table(out))
    assert "on a random split" in shown
    assert "match" not in shown and "differs" not in shown and "Δ" in shown


def test_full_scale_has_a_status_a_cell_where_they_differ() -> None:
    out = report.compare(1, {"reference": results("japan", offset=-0.11)}, target="l01", split="random")
    page = tables.comparison_table(out)
    assert ">match<" in page.text
    assert ">differs<" in page.text
    best = re.findall(r'<td class="[^"]*best[^"]*">([^<]*)', page.text)
    assert len(best) == 1
    assert float(best[0].replace("−", "-")) == pytest.approx(-0.01)


def test_a_plumbing_check_carries_no_verdict() -> None:
    out = report.compare(1, {"this run": results("demo", stand_in=True)}, target="l01", split="random")
    page = tables.comparison_table(out)
    assert "its numbers mean nothing" in page.text
    for word in ("match", "differs", "stand-in data", "reduced scale", "Δ"):
        assert word not in text_of(page)
    assert 'class="best' not in page.text
    assert "0.400" in text_of(page)


def test_accuracies_are_shown_in_pairs_and_percent() -> None:
    rows = pd.concat(
        [
            results(experiment="table2", target="area_type", metric="top1"),
            results(experiment="table2", target="area_type", metric="top5", offset=0.2),
        ]
    )
    out = report.compare(2, {"reference": rows}, target="area_type", split="random")
    shown = text_of(tables.comparison_table(out))
    assert "top-1 / top-5, %" in shown
    assert re.search(r"40\.0\s+± 3\.0\s+/\s+60\.0\s+± 3\.0", shown)
    assert "36.79 / 50.91" in shown
    assert "not stated" in shown


def test_pages_ask_nothing_of_the_network() -> None:
    out = report.compare(1, {"reference": results()}, target="l01", split="random")
    for page in (tables.comparison_table(out), tables.provenance_footer(results())):
        assert not re.search(r"https?:|<script|@import|url\(", page.text)


def test_footer_prints_the_one_command() -> None:
    text = tables.provenance_footer([results(), None, results("demo", stand_in=True)]).text
    assert "python -m reproduction table 1 --profile japan-cpu" in text
    assert "python -m reproduction table 1 --profile demo" in text
    assert "1234567" in text and "feed" in text and "2026-01-01" in text
    assert "stand-ins" in text and "run ids: 1" in text
    # claims have no run ids, and those that are not run say nothing of their labels
    text = tables.provenance_footer([results().assign(run_id="", stand_in=[np.nan, *results()["stand_in"][1:]])]).text
    assert "stand-ins" not in text and "run ids" not in text
