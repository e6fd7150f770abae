"""From a table of places of one's own to a run: what it learns from, going on, and mistakes in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
import torch

from selm import checkpoints, files
from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.maps import style
from selm.maps.atlas import Atlas
from selm.pretrain import fit
from selm.settings import SMALL, Recolouring

# Not 4 channels, as made up encoders have: on processors without AVX-512, oneDNN (torch 2.15) writes beyond its memory
# in the backward pass of such convolutions at 32 px.
ENCODER = dataclasses.replace(made_up.CONFIG, width=0.125)
SHORT = dataclasses.replace(
    SMALL, images=24, batch=8, head_hidden=16, head_bottleneck=8, out_dim=16, geo_hidden=8, rec_channels=8,
    cluster_hidden=8, cluster_out=8, prototypes=8, density_classes=5, checkpoint_every=2, log_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return made_up.atlas(tmp_path_factory.mktemp("map") / "atlas", 3, 3)


@pytest.fixture
def places() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    lat, lon = made_up.place(1 + rng.random(40), 1 + rng.random(40))
    price, density = np.exp(rng.normal(size=40)), 100 * rng.random(40)
    price[:5], density[7] = np.nan, np.nan
    return pd.DataFrame({"lat": lat, "lon": lon, "price": price, "density": density, "name": "x"})


def run(atlas: Atlas, places: pd.DataFrame, folder: Path, method: str = "gps_selm") -> Path:
    return fit(method, atlas, places, folder, encoder=ENCODER, settings=SHORT, device="cpu", progress=False)


def test_a_run_from_a_table_of_places(atlas: Atlas, places: pd.DataFrame, tmp_path: Path) -> None:
    folder = run(atlas, places, tmp_path / "run")
    about = files.read_json(folder / "run.json")
    assert about["complete"] and about["steps"] == 3 and about["config"]["pretraining"]["n_places"] == 40
    curve = pd.read_csv(folder / "metrics.csv")
    assert (curve[["price", "density", "rec", "clust", "cl"]] > 0).all(axis=None)  # every loss of eq. 13 is felt
    config = MapEncoder.from_pretrained(str(folder)).config
    assert config.style == "made-up" and config.pixel_mean != ENCODER.pixel_mean  # those of the places' images
    before = (folder / "model.safetensors").read_bytes()
    run(atlas, places, tmp_path / "run")  # finished: left as it is
    assert (folder / "model.safetensors").read_bytes() == before
    run(atlas, places, tmp_path / "again")  # the same seed, the same weights
    one, two = (checkpoints.load_tensors(f / "model.safetensors")[0] for f in (folder, tmp_path / "again"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_methods_that_need_coordinates_alone(atlas: Atlas, places: pd.DataFrame, tmp_path: Path) -> None:
    for method in ("dino", "tile2vec"):
        run(atlas, places[["lat", "lon"]], tmp_path / method, method)
        assert (tmp_path / method / "model.safetensors").exists()


def test_prices_are_standardised_by_their_logarithm(
    atlas: Atlas, places: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    from selm import pretrain

    real = pretrain.view_sampler

    def keep(atlas_: object, table: pd.DataFrame, *rest: object, **more: object) -> object:
        seen["table"] = table
        return real(atlas_, table, *rest, **more)

    monkeypatch.setattr(pretrain, "view_sampler", keep)
    run(atlas, places, tmp_path / "run")
    table, log = seen["table"], np.log(places["price"])
    np.testing.assert_allclose(table["price"], (log - log.mean()) / log.std(ddof=0), rtol=1e-5)
    assert table["density_class"][7] == -1 and set(table["density_class"].drop(7)) == set(range(5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="price"), "gps_selm learns from the column 'price'"),
        (lambda t: t.assign(price=0.0), "row 1, column price: '0.0' is too small"),
        (lambda t: t.assign(density=["a lot"] * len(t)), "row 1, column density: 'a lot' is no number"),
        (lambda t: t.assign(price=3.0), "column 'price', which has no two different values"),
        (lambda t: t.iloc[:0], "the table of places is empty"),
        (lambda t: t.assign(lat=t["lat"] + 10), "40 of 40 places lie outside the map; the first is row 1"),
        (lambda t: t.assign(lat=np.nan), "lat"),
        (lambda t: t.assign(lat="60°N"), "columns lat and lon must be degrees as numbers"),
    ],
)
def test_bad_tables_are_one_line_and_leave_nothing(
    change, said, atlas: Atlas, places: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        run(atlas, change(places), tmp_path / "run")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_atlas_must_have_the_zooms(places: pd.DataFrame, tmp_path: Path) -> None:
    lacking = made_up.atlas(tmp_path / "atlas", 3, 3, zooms=(17,))
    with pytest.raises(InputError, match=r"pretraining needs zooms 17, 16 and 8 pixels a tile; the atlas has"):
        run(lacking, places, tmp_path / "run")
    with pytest.raises(InputError, match="did you mean 'gps_selm'"):
        run(lacking, places, tmp_path / "run", "gps_selmm")


def test_a_folder_of_another_run_is_refused(atlas: Atlas, places: pd.DataFrame, tmp_path: Path) -> None:
    run(atlas, places, tmp_path / "run", "dino")
    with pytest.raises(InputError, match="belongs to another configuration"):
        run(atlas, places, tmp_path / "run", "moco_v2")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["method"] == "dino"
    assert torch.isfinite(MapEncoder.from_pretrained(str(tmp_path / "run")).network.conv1.weight).all()


def test_colours_are_changed_where_the_style_is_known(
    atlas: Atlas, places: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(dropped: float) -> Path:
        return fit("dino", atlas, places, tmp_path / "run", encoder=ENCODER, settings=SHORT, device="cpu",
                   recolouring=Recolouring(dropped), progress=False)  # fmt: skip

    with pytest.raises(InputError, match="no map style 'made-up'"):
        changed(0.2)
    named = style.Style.named("selm")
    monkeypatch.setattr(style.Style, "named", lambda name: named)
    with pytest.raises(
        InputError, match="the map is not drawn in today's colours of style selm, which are to be changed"
    ):
        changed(0.2)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"recolouring: chances of 1\.2 and 0, of 0 to 1 together"):
        changed(1.2)
