"""The index against exact search on the same embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("faiss")

from selm import cli
from selm.embedding import search
from selm.embedding.search import Index, Nearest, build_index, find_nearest
from selm.embedding.tables import embedding_pieces, one_embedding
from selm.errors import InputError

N, DIM = 12_000, 24
MISSING = (5, 700, 11_999)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Embeddings in clusters, most of whose variance lies in 12 directions; three rows without one."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    clusters = rng.normal(size=(60, 12))
    inside = clusters[rng.integers(0, 60, N)] + 0.3 * rng.normal(size=(N, 12))
    vectors = inside @ basis[:12] + 0.01 * rng.normal(size=(N, DIM))
    vectors[list(MISSING)] = np.nan
    places = pd.DataFrame({"lat": 35 + rng.random(N), "lon": 139 + rng.random(N), "name": [f"p{i}" for i in range(N)]})
    return pd.concat([places, pd.DataFrame(vectors.astype(np.float32), columns=[f"e{i}" for i in range(DIM)])], axis=1)


@pytest.fixture(scope="module")
def file(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embeddings") / "places.parquet"
    table.to_parquet(path, index=False, row_group_size=5_000)
    return path


@pytest.fixture(scope="module")
def index(file: Path) -> Index:
    return build_index(file, file.parent / "places.index", dims=16, progress=False)


def vectors_of(table: pd.DataFrame) -> np.ndarray:
    return table[[f"e{i}" for i in range(DIM)]].to_numpy(np.float32)


def test_it_finds_what_exact_search_finds(table: pd.DataFrame, index: Index) -> None:
    exact = Nearest(vectors_of(table), table["lat"], table["lon"])
    rows = np.arange(0, N, 61)
    rows = rows[~np.isin(rows, MISSING)]
    questions = vectors_of(table)[rows]
    expected, similarity = exact.query(questions, 10)
    found, close = index.query(questions, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected, found, strict=True)])
    assert recall > 0.9
    np.testing.assert_array_equal(found[:, 0], rows)  # itself
    np.testing.assert_allclose(close, similarity, atol=5e-3)
    assert index.about["lists"] > 1 and index.about["kept"] > 0.99


def test_looking_into_fewer_lists_finds_less(table: pd.DataFrame, index: Index) -> None:
    questions = vectors_of(table)[6::97]
    everything, _ = index.query(questions, 20, lists=10_000)
    one_list, _ = index.query(questions, 20, lists=1)
    shared = [len(set(a) & set(b)) for a, b in zip(everything, one_list, strict=True)]
    assert np.mean(shared) < 20


def test_places_without_an_embedding_are_never_found(table: pd.DataFrame, index: Index) -> None:
    assert index.about["places"] == N - len(MISSING) and index.about["rows"] == N
    rows, _ = index.query(vectors_of(table)[0], N, lists=10_000)
    found = rows[rows >= 0]
    assert len(found) == N - len(MISSING) and not set(found) & set(MISSING)


def test_the_answer_is_that_of_exact_search_in_the_same_form(table: pd.DataFrame, file: Path, index: Index) -> None:
    exact, close = find_nearest(file, 4, row=123), find_nearest(index.folder, 4, row=123)
    assert list(close) == list(exact) and 123 not in set(close["row"])
    assert close["row"].tolist() == exact["row"].tolist()
    np.testing.assert_array_equal(close["metres"], exact["metres"])
    place = (35.5, 139.5)
    assert find_nearest(index.folder, 3, like=place)["row"][0] == find_nearest(file, 3, like=place)["row"][0]
    for row in MISSING:  # no embedding: its place is no answer, and rows without coordinates stop nobody
        there = tuple(table.loc[row, ["lat", "lon"]].astype(float))
        assert find_nearest(index.folder, 3, like=there)["row"][0] == find_nearest(file, 3, like=there)["row"][0]


def test_a_piece_without_any_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = pd.DataFrame({"lat": [35.0, 36.0], "lon": [139.0, 139.5]})
    full = np.eye(2, 3, dtype=np.float32)
    pieces = [(0, places, np.zeros((2, 0), np.float32)), (2, places, full)]
    monkeypatch.setattr(search, "embedding_pieces", lambda _: iter(pieces))
    assert build_index(tmp_path / "e.csv", tmp_path / "index", progress=False).query(full)[0][:, 0].tolist() == [2, 3]


def test_a_file_is_read_in_pieces_with_the_same_content(table: pd.DataFrame, file: Path, tmp_path: Path) -> None:
    pieces = list(embedding_pieces(file))
    np.testing.assert_array_equal(np.concatenate([piece for _, _, piece in pieces]), vectors_of(table))
    np.testing.assert_array_equal(pd.concat([t for _, t, _ in pieces])["lat"], table["lat"])
    for row in (0, 4_999, 5_000, 11_998):
        np.testing.assert_array_equal(one_embedding(file, row), vectors_of(table)[row])
    assert np.isnan(one_embedding(file, 5)).all()
    with pytest.raises(InputError, match="no row 12001"):
        one_embedding(file, 12_000)
    few = tmp_path / "few.csv"
    table.iloc[:7].to_csv(few, index=False)
    ((start, _, piece),) = embedding_pieces(few)
    assert start == 0
    np.testing.assert_allclose(piece, vectors_of(table)[:7])
    np.testing.assert_allclose(one_embedding(few, 3), vectors_of(table)[3])


def test_what_cannot_be_used_is_named_in_a_line(file: Path, index: Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists; choose another folder"):
        build_index(file, index.folder, progress=False)
    with pytest.raises(InputError, match="no such file"):
        build_index(tmp_path / "none.parquet", tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match="row 6 has no embedding"):
        find_nearest(index.folder, row=6)
    with pytest.raises(InputError, match="no row 12001"):
        find_nearest(index.folder, row=12_001)
    with pytest.raises(InputError, match="a vector of 3 numbers; the embeddings have 24"):
        index.query([1, 2, 3])
    (tmp_path / "index.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="index format 99"):
        Index(tmp_path)


def test_the_command_line_indexes_and_asks(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.index"
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", str(file), "--out", str(out), "--dims", "12"])
    assert not ended.value.code
    assert "11997 places in 12 dimensions" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["nearest", str(out), "--row", "124", "-k", "2"])
    assert not ended.value.code
    assert len(capsys.readouterr().out.splitlines()) == 3
