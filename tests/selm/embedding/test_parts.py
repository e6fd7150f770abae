"""What stands beside the features, which zooms are looked at, and what a PCA leaves: by name, and as by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest

import selm
from selm.embedding.embedder import Embedder
from selm.embedding.reduction import Reduction, fit
from selm.embedding.tables import embed_file, read_embeddings
from selm.encoder import MapEncoder
from selm.errors import InputError, InputWarning
from selm.maps.atlas import Atlas
from selm.maps.colours import colour_histogram

ZOOMS = (17, 16)
RNG = np.random.default_rng(0)
LAT, LON = made_up.place(0.3 + 2.4 * RNG.random(40), 0.3 + 2.4 * RNG.random(40))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made_up.atlas(tmp_path_factory.mktemp("atlas"), 3, 3, zooms=ZOOMS)


@pytest.fixture(scope="module")
def encoder() -> MapEncoder:
    return made_up.encoder(dataclasses.replace(made_up.CONFIG, context_zooms=(16,)))


@pytest.mark.parametrize("zooms", [(17, 16), (16,)])
def test_colours_and_coordinates_stand_behind_the_features(
    encoder: MapEncoder, atlas: Atlas, zooms: tuple[int, ...]
) -> None:
    embedder = Embedder(encoder, atlas, "cpu", 7, zooms=zooms, beside=("coordinates", "colours"))
    out, alone = embedder(LAT, LON), Embedder(encoder, atlas, "cpu", zooms=zooms)(LAT, LON)
    n, px = len(zooms), encoder.config.image_px
    assert embedder.parts == {"e": n * encoder.dim, "colour": n * 64, "x": 3} and out.dtype == np.float32
    assert embedder.names == embedder.get_feature_names_out().tolist() and len(embedder.names) == out.shape[1]
    assert embedder.names[n * encoder.dim] == "colour0" and embedder.names[-1] == "x2"
    np.testing.assert_allclose(out[:, : n * encoder.dim], alone, atol=1e-5)
    images = [atlas.indices(LAT, LON, zoom, px) for zoom in zooms]
    shares = np.hstack([colour_histogram(np.asarray(image), atlas.palette) for image in images])
    np.testing.assert_array_equal(out[:, n * encoder.dim : -3], shares)
    phi, lam = np.radians(LAT), np.radians(LON)
    there = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
    np.testing.assert_allclose(out[:, -3:], there, atol=1e-6)


def test_what_there_is_not_is_refused(encoder: MapEncoder, atlas: Atlas) -> None:
    for options, words in (
        ({"beside": ("colour",)}, "unknown part beside the embedding 'colour'; did you mean 'colours'"),
        ({"zooms": (17, 17)}, "each once"),
        ({"zooms": (17, 15)}, "needs zoom 15; the atlas has 17, 16"),
    ):
        with pytest.raises(InputError, match=words):
            Embedder(encoder, atlas, "cpu", **options)(LAT, LON)  # type: ignore[arg-type]


def test_embed_in_one_line(encoder: MapEncoder, atlas: Atlas) -> None:
    out = selm.embed(LAT, LON, map=atlas, model=encoder, device="cpu", beside=("coordinates",))
    np.testing.assert_array_equal(out, Embedder(encoder, atlas, "cpu", beside=("coordinates",))(LAT, LON))
    table = selm.embed(pd.DataFrame({"lat": LAT, "lon": LON}), map=atlas, model=encoder, device="cpu")
    assert table.columns.tolist() == ["lat", "lon", *(f"e{i}" for i in range(2 * encoder.dim))]
    np.testing.assert_allclose(table.iloc[:, 2:], out[:, :-3], atol=1e-5)
    for wrong in ((LAT,), (table, LON)):
        with pytest.raises(InputError, match=r"embed\((lat, lon|table)\)"):
            selm.embed(*wrong, map=atlas, model=encoder)  # type: ignore[call-overload]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_parts_are_written_and_read_again(encoder: MapEncoder, atlas: Atlas, tmp_path: Path, ending: str) -> None:
    embedder = Embedder(encoder, atlas, "cpu", beside=("coordinates", "colours"))
    table = pd.DataFrame({"lat": LAT, "lon": LON, "x0": "mine"})
    table.to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / f"out.{ending}"
    with pytest.warns(InputWarning, match="has a column x0; the embeddings are called selm_e0 … selm_x2"):
        embed_file(tmp_path / "x.csv", embedder, out, progress=False)
    others, vectors = read_embeddings(out)
    assert list(others.columns) == ["lat", "lon", "x0"] and set(others["x0"]) == {"mine"}
    np.testing.assert_allclose(vectors, embedder(LAT, LON), atol=1e-5)
    # no coordinates beside: a column x0 of the user's is not taken for ours
    embed_file(tmp_path / "x.csv", Embedder(encoder, atlas, "cpu", beside=("colours",)), out, progress=False)
    others, vectors = read_embeddings(out)
    assert "x0" in others and vectors.shape[1] == 2 * (encoder.dim + 64)


def test_components_are_kept_and_used_again(encoder: MapEncoder, atlas: Atlas, tmp_path: Path) -> None:
    table = pd.DataFrame({"lat": [*LAT, 0.0], "lon": [*LON, 0.0]})
    table.to_csv(tmp_path / "x.csv", index=False)
    table[:5].to_csv(tmp_path / "y.csv", index=False)
    embedder = Embedder(encoder, atlas, "cpu", beside=("colours",))
    out, kept = tmp_path / "out.parquet", tmp_path / "out.parquet.pca.safetensors"
    with pytest.warns(InputWarning, match="0, 0"):
        assert embed_file(tmp_path / "x.csv", embedder, out, pca=4, progress=False) == 40
    assert pd.read_parquet(out).columns.tolist() == ["lat", "lon", "pc0", "pc1", "pc2", "pc3"]
    _, four = read_embeddings(out)
    assert np.isnan(four[-1]).all() and four.dtype == np.float32
    x = embedder(LAT, LON)
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 1e-6, x.std(axis=0), 1)
    u, s, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(four[:-1]), np.abs(u[:, :4] * s[:4]), rtol=0.02, atol=0.02)
    assert Reduction.load(kept, embedder.identity).kept == pytest.approx((s[:4] ** 2).sum() / (s**2).sum(), abs=0.01)
    embed_file(tmp_path / "y.csv", embedder, tmp_path / "again.parquet", pca=kept, progress=False)
    np.testing.assert_allclose(read_embeddings(tmp_path / "again.parquet")[1], four[:5], atol=1e-4)
    assert not (tmp_path / "again.parquet.pca.safetensors").exists()
    with pytest.raises(InputError, match="a reduction of other embeddings"):
        embed_file(tmp_path / "y.csv", Embedder(encoder, atlas, "cpu"), tmp_path / "z.parquet", pca=kept)
    with pytest.raises(InputError, match="a PCA to 6 numbers needs as many rows"):
        embed_file(tmp_path / "y.csv", embedder, tmp_path / "z.parquet", pca=6, progress=False)
    assert list(tmp_path.glob("*z.parquet*")) == []


def test_components_of_many_rows_are_of_a_random_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selm.embedding.reduction.MOST", 50)
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    a, b = (fit(x, np.arange(400), 2, "") for _ in range(2))
    np.testing.assert_array_equal(a(x), b(x))
    assert 0 < a.kept < 1 and np.abs(a.mean - x.mean(axis=0)).max() > 1e-3
