"""A call that was stopped goes on where it was: nothing is computed twice, and the outcome is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pytest

from selm.embedding import inference
from selm.embedding.embedder import Embedder
from selm.embedding.tables import embed_file, kept_rows, read_embeddings
from selm.errors import InputError
from selm.maps.atlas import Atlas


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return made_up.atlas(tmp_path / "atlas", 3, 3)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lat, lon = made_up.place(0.2 + 2.6 * rng.random(300), 0.2 + 2.6 * rng.random(300))
    pd.DataFrame({"lat": lat, "lon": lon}).to_csv(tmp_path / "x.csv", index=False)
    return tmp_path / "x.csv"


class Interrupting(Embedder):
    """Stops with an error after some helpings; counts the places that it embeds."""

    helpings: int = 10**6
    error: BaseException = KeyboardInterrupt()
    seen = 0

    def stream(self, lat: Any, lon: Any, **options: Any) -> Any:
        for rows, vectors in super().stream(lat, lon, **options):
            self.helpings -= 1
            if self.helpings < 0:
                raise self.error
            self.seen += len(rows)
            yield rows, vectors


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the server has gone")])
def test_rows_that_are_done_are_not_computed_again(
    atlas: Atlas, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setitem(inference.TOGETHER, "cpu", 64)
    encoder, out = made_up.encoder(), tmp_path / "out.parquet"
    first = Interrupting(encoder, atlas, "cpu")
    first.helpings, first.error = 3, error
    with pytest.raises(type(error)):
        embed_file(table, first, out, progress=False)
    (left,) = tmp_path.glob(".out.parquet.*")
    assert 0 < first.seen < 300 and not out.exists()

    other = Interrupting(encoder, atlas, "cpu", orientations=8)  # other embeddings: from the beginning
    other.helpings = 2
    with pytest.raises(KeyboardInterrupt):
        embed_file(table, other, out, progress=False)
    assert len(list(tmp_path.glob(".out.parquet.*"))) == 2 and left.exists()

    again = Interrupting(encoder, atlas, "cpu", batch=11)
    assert embed_file(table, again, out, progress=False) == 300
    assert again.seen == 300 - first.seen and list(tmp_path.glob(".out.parquet.*")) == []
    whole = pd.read_csv(table)
    np.testing.assert_allclose(
        read_embeddings(out)[1], Embedder(encoder, atlas, "cpu")(whole["lat"], whole["lon"]), atol=1e-5
    )


def test_where_nothing_was_done_nothing_stays(atlas: Atlas, table: Path, tmp_path: Path) -> None:
    embedder = Interrupting(made_up.encoder(), atlas, "cpu")
    embedder.helpings = 0
    with pytest.raises(KeyboardInterrupt):
        embed_file(table, embedder, tmp_path / "out.csv", progress=False)
    assert list(tmp_path.glob(".out*")) == []


def test_a_file_of_another_size_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept_rows(tmp_path / "o", 5, 3, "key") as rows:
        rows.keep(np.array([1, 3]), np.ones((2, 3), np.float32))
        raise KeyboardInterrupt
    (file,) = tmp_path.iterdir()
    with pytest.raises(KeyboardInterrupt), kept_rows(tmp_path / "o", 5, 3, "key") as rows:
        assert rows.done.tolist() == [False, True, False, True, False] and rows.values[3].tolist() == [1, 1, 1]
        raise KeyboardInterrupt
    file.write_bytes(file.read_bytes()[:-1])  # cut short
    with kept_rows(tmp_path / "o", 5, 3, "key") as rows:
        assert not rows.done.any()
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import sys
import time
import made_up
from selm.embedding import inference, tables
from selm.embedding.embedder import Embedder
from selm.embedding.tables import embed_file
inference.TOGETHER["cpu"] = 64
keep = tables.Rows.keep

def slowly(self, rows, values):  # long enough to be killed
    time.sleep(60 if self.done.any() else 0)
    keep(self, rows, values)

tables.Rows.keep = slowly
embed_file(sys.argv[1], Embedder(made_up.encoder(), sys.argv[2], "cpu"), sys.argv[3], progress=False)
"""


def test_killed_without_warning(atlas: Atlas, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PROGRAM, str(table), str(atlas.path), str(out)]
    process = subprocess.Popen(command, env=environment)

    def done() -> int:
        files = list(tmp_path.glob(".out.parquet.*.rows"))
        return int(np.fromfile(files[0], np.bool_, 300).sum()) if files and files[0].stat().st_size else 0

    while process.poll() is None and not done():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = done()
    assert before > 0 and not out.exists()
    embedder = Interrupting(made_up.encoder(), str(atlas.path), "cpu")
    embed_file(table, embedder, out, progress=False)
    assert embedder.seen == 300 - before
    whole = pd.read_csv(table)
    want = Embedder(made_up.encoder(), atlas, "cpu")(whole["lat"], whole["lon"])
    np.testing.assert_allclose(read_embeddings(out)[1], want, atol=1e-5)


def test_progress_is_told_by_place_and_in_shares(atlas: Atlas) -> None:
    told: list[float] = []
    embedder = Embedder(made_up.encoder(), atlas, "cpu", 5, zooms=(17, 16))
    lat, lon = made_up.place(np.linspace(0.3, 2.5, 40), np.linspace(0.3, 2.5, 40))
    for _ in embedder.stream(lat, lon, tick=told.append):
        pass
    assert sum(told) == pytest.approx(40) and len(told) >= 12 and max(told) <= 5 / 2 + 1e-9
