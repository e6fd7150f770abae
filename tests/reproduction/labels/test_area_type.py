"""Zoning values, their merged zones, and what guessing scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reproduction.labels import area_type
from reproduction.labels.land_price import read_l01
from reproduction.pages.published import results_folder

L01 = "mlit/L01-2013.zip"


@pytest.mark.parametrize(
    ("zoning", "name"),
    [
        ("1低専", "category 1 low-rise residential"),
        ("2中専,準防", "category 2 mid/high-rise residential"),
        ("1住居,準防,都市", "category 1 residential"),
        ("準住居", "quasi-residential"),
        ("商業,防火", "commercial"),
        ("近商,都市", "neighbourhood commercial"),
        ("準工", "quasi-industrial"),
        ("工専", "exclusively industrial"),
        ("田園住", "category 2 low-rise residential"),
        ("調区,地森計", "no use district"),
        ("準防,都市", "no use district"),
        ("都計外", "no use district"),
        ("", "no use district"),
    ],
)
def test_zone_of(zoning, name):
    assert area_type.ZONE_NAMES[area_type.zone_of([zoning])[0]] == name


def test_most_frequent_and_encode():
    values = ["b", "a", "b", "", "c", "a", "d"]
    names = area_type.most_frequent(values, 3)
    assert names == ("a", "b", "c")  # ties by code point; the empty value is no class
    assert area_type.codes_of(values, names).tolist() == [1, 0, 1, -1, 2, 0, -1]


def test_official_zoning(real):
    """METHODS' count: 45 zoning values have 20 points or more, and the 70th has two."""
    zoning = read_l01(real(L01))["zoning"]
    names = area_type.most_frequent(zoning, 70)
    codes = area_type.codes_of(zoning, names)
    counts = np.bincount(codes[codes >= 0])
    assert (len(counts), int((counts >= 20).sum()), int(counts[69])) == (70, 45, 2)
    assert (names[0], int(counts[0])) == ("1低専", 4_212)
    merged = area_type.zone_of(zoning)
    assert (len(merged), len(np.unique(merged))) == (25_983, 13)


def test_zones_agree_with_the_official_polygons_of_tochigi(real):
    """L01's zoning (2013) against A29's polygons (2019): districts change, but seldom."""
    geopandas = pytest.importorskip("geopandas")
    zones = geopandas.read_parquet(real("mlit/zoning-a29-tochigi.parquet")).to_crs("EPSG:4326")
    points = read_l01(real(L01))
    points = points[points["address"].str.startswith("栃木県")]
    points = geopandas.GeoDataFrame(points, geometry=geopandas.points_from_xy(points["lon"], points["lat"], crs=4326))
    joined = points.sjoin(zones, predicate="intersects").drop_duplicates("id")
    japanese = {name: code for code, (_, name, _) in enumerate(area_type.ZONES) if name}
    official = joined["用途地域"].map(japanese).to_numpy()
    assert len(joined) > 250
    assert (area_type.zone_of(joined["zoning"]) == official).mean() > 0.9


def test_zoning_is_shown_in_english() -> None:
    assert area_type.in_english("1住居,準防") == "category 1 residential, quasi-fire zone"
    assert area_type.in_english("category 2 residential") == "category 2 residential"
    counts = pd.read_csv(results_folder() / "japan-cpu" / "table2-classes.csv")
    for _, of_target in counts.groupby("target"):
        shown = [area_type.in_english(value) for value in of_target["class"]]
        assert all(text.isascii() for text in shown), [text for text in shown if not text.isascii()]
        assert len(set(shown)) == len(shown)
