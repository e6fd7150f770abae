"""L01 against rows read by hand from the official file; prices between points against a slow loop."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reproduction.labels.land_price import PriceScale, fields_of, interpolate_price, inverse_distance_mean, read_l01
from selm.errors import InputError
from selm.maps.mercator import haversine_m

L01 = "mlit/L01-2013.zip"
# Read by hand from L01-13.dbf and L01-13.shp: row (from 0), lat, lon, yen/m², current use, zoning, address, id.
BY_HAND = [
    (0, 24.346996, 124.149335, 62_800, "住宅,店舗", "近商,都市", "沖縄県　石垣市新栄町７０番１２", "47207-005-002"),
    (12345, 36.664747, 137.223523, 40_000,
     "住宅", "1住居", "富山県　富山市大町字市右エ門割１９８番２", "16201-000-012"),
    (19900, 35.68109, 139.763937, 27_000_000,
     "店舗,事務所", "商業,防火", "東京都　千代田区丸の内２－４－１", "13101-005-042"),
    (24509, 42.452773, 141.130382, 460, "住宅", "調区", "北海道　登別市札内町３４２番５", "01230-000-012"),
    (25982, 43.330915, 145.600589, 12_400,
     "住宅", "1低専,都市", "北海道　根室市明治町２丁目８３番", "01223-000-002"),
]  # fmt: skip


def test_rows_read_by_hand(real):
    points = read_l01(real(L01))
    assert list(points.columns) == ["lat", "lon", "price_yen_m2", "current_use", "zoning", "address", "id"]
    for row, lat, lon, price, use, zoning, address, id_ in BY_HAND:
        got = points.iloc[row]
        assert (got.lat, got.lon) == pytest.approx((lat, lon), abs=1e-9)
        assert got.price_yen_m2 == price
        assert (got.current_use, got.zoning, got.address, got.id) == (use, zoning, address, id_)


def test_counts_of_the_official_file(real):
    points = read_l01(real(L01))
    assert len(points) == 25_983
    assert points.attrs["year"] == 2013
    assert points["address"].str.startswith("北海道").sum() == 1_371
    assert (points["price_yen_m2"].min(), points["price_yen_m2"].max()) == (460, 27_000_000)
    assert points["current_use"].nunique() == 88
    assert points["zoning"].nunique() == 87
    assert (points["zoning"] == "1低専").sum() == 4_212
    assert points["id"].is_unique


def test_every_row_agrees_with_the_bytes_of_the_table(real):
    """The dBase table parsed here byte by byte, in a way that shares nothing with the reader."""
    path = real(L01)
    with zipfile.ZipFile(path) as archive:
        dbf, shp = archive.read("L01-13.dbf"), archive.read("L01-13.shp")
    n, header, width = struct.unpack("<IHH", dbf[4:12])
    starts, at, offset = {}, 32, 1
    while dbf[at] != 0x0D:
        starts[dbf[at : at + 11].split(b"\0")[0].decode()] = (offset, dbf[at + 16])
        offset, at = offset + dbf[at + 16], at + 32

    def column(name: str) -> list[str]:
        start, length = starts[name]
        at = range(header + start, header + start + n * width, width)
        return [dbf[a : a + length].decode("cp932").strip() for a in at]

    points = read_l01(path)
    assert points["price_yen_m2"].tolist() == [float(price) for price in column("L01_006")]
    assert points["zoning"].tolist() == column("L01_029")
    assert points["address"].tolist() == column("L01_019")
    places = np.array([struct.unpack("<dd", shp[100 + 28 * i + 12 : 100 + 28 * i + 28]) for i in range(n)])
    assert np.array_equal(points[["lon", "lat"]].to_numpy(), places)


# Small files in the official layout


def _write(folder: Path, year: int, name: str, suffix: str = ".geojson", **changes: object) -> Path:
    """A zip of two points in the layout of `year`; `changes` overrides attributes of the second row."""
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    fields = fields_of(year)
    row = {fields.price: "62800", fields.address: "北海道　札幌市", fields.current_use: "住宅", fields.zoning: "近商"}
    row |= dict(zip(fields.id, ("01101", "000", "001"), strict=True))
    place = changes.pop("place", (141.35, 43.06))
    rows = [row, {**row, **changes}]
    columns = list(row)
    table = geopandas.GeoDataFrame(
        {name: [r[name] for r in rows] for name in columns if all(name in r for r in rows)},
        geometry=[shapely.Point(141.3, 43.0), shapely.Point(*place)],
        crs=None if suffix == ".shp" else "EPSG:6668",
    )
    table = table[[name for name in table.columns if changes.get(name, "") is not None]]
    folder.mkdir(exist_ok=True)
    member = folder / f"L01-{year % 100:02d}{suffix}"
    table.to_file(member, encoding="cp932" if suffix == ".shp" else None)
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.glob("L01-*")):
            if file.suffix != ".prj":
                archive.write(file, f"L01-{year % 100:02d}_01_GML/{file.name}")
    return path


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("year", [1983, 1999, 2012, 2013, 2014, 2021, 2022, 2023, 2024, 2025, 2026])
@pytest.mark.parametrize("suffix", [".geojson", ".shp"])
def test_each_layout(tmp_path, year, suffix):
    points = read_l01(_write(tmp_path / "x", year, "prices", suffix, **{fields_of(year).price: "27000000"}))
    assert points["price_yen_m2"].tolist() == [62_800, 27_000_000]
    assert points["zoning"].tolist() == ["近商", "近商"]
    assert points["address"].tolist() == ["北海道　札幌市"] * 2
    assert points["id"].tolist() == ["01101-000-001"] * 2
    assert points.attrs["year"] == year


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_shapefile_without_attributes(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    path = tmp_path / "L01-18_01.shp"
    geopandas.GeoDataFrame(geometry=[shapely.Point(141.3, 43.0)]).to_file(path)
    with pytest.raises(InputError, match=r"L01-18_01\.shp has no attributes; take the GeoJSON of the same edition"):
        read_l01(path)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_metres_without_prj_are_not_taken_for_degrees(tmp_path):
    path = _write(tmp_path / "x", 2013, "metres", ".shp", place=(-20_000.0, -150_000.0))
    with pytest.raises(InputError, match=r"has no \.prj and its coordinates are no degrees"):
        read_l01(path)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_geojson_is_preferred(tmp_path):
    _write(tmp_path / "x", 2018, "both", ".shp")
    path = _write(tmp_path / "x", 2018, "both", ".geojson", L01_006="99")
    assert read_l01(path)["price_yen_m2"].tolist() == [62_800, 99]


def test_missing_file():
    with pytest.raises(InputError, match=r"nowhere\.zip: no such file"):
        read_l01("nowhere.zip")


def test_truncated_zip(tmp_path):
    whole = _write(tmp_path / "x", 2013, "L01-2013")
    cut = tmp_path / "L01-2013.zip"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"L01-2013\.zip: not a whole zip"):
        read_l01(cut)


def test_zip_of_something_else(tmp_path):
    path = tmp_path / "L01-2013.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"holds no L01 GeoJSON or shapefile \(has: readme\.txt\)"):
        read_l01(path)


def test_rubbish_inside(tmp_path):
    path = tmp_path / "L01-2013.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("L01-13.geojson", "not json at all")
    with pytest.raises(InputError, match=r"L01-2013\.zip: L01-13\.geojson: not a \.geojson file") as error:
        read_l01(path)
    assert "\n" not in str(error.value)


def test_missing_field(tmp_path):
    with pytest.raises(InputError, match=r"field L01_029 is missing.*2013"):
        read_l01(_write(tmp_path / "x", 2013, "prices", L01_029=None))


@pytest.mark.parametrize("price", ["", "about 500", "-3", "0"])
def test_price_that_is_none(tmp_path, price):
    with pytest.raises(InputError, match=rf"prices\.zip: row 2, field L01_006: '{price}' is not a price"):
        read_l01(_write(tmp_path / "x", 2013, "prices", L01_006=price))


def test_point_outside_japan(tmp_path):
    with pytest.raises(InputError, match=r"row 2 lies at lat 141\.35, lon 43\.06, outside Japan"):
        read_l01(_write(tmp_path / "x", 2013, "prices", place=(43.06, 141.35)))


def test_unknown_edition(tmp_path):
    with pytest.raises(InputError, match="editions start in 1983"):
        fields_of(1970)
    path = tmp_path / "prices.geojson"
    path.write_text("{}")
    with pytest.raises(InputError, match="the name says no edition"):
        read_l01(path)


# Prices between points


def _slow_mean(lat, lon, to_lat, to_lon, values, k, radius_m):
    out = []
    for a, o in zip(lat, lon, strict=True):
        near = []
        for b, p, value in zip(to_lat, to_lon, values, strict=True):
            distance = float(haversine_m(a, o, b, p))
            if distance <= radius_m:
                near.append((distance, value))
        near = sorted(near)[:k]
        weights = [1 / max(distance, 1.0) for distance, _ in near]
        mean = sum(w * v for w, (_, v) in zip(weights, near, strict=True)) / sum(weights) if near else np.nan
        out.append(mean)
    return np.array(out)


@pytest.mark.parametrize(("k", "radius_m"), [(1, 1e9), (5, 2000.0), (5, 400.0), (40, 3000.0)])
def test_inverse_distance_mean_is_a_slow_loop(k, radius_m):
    rng = np.random.default_rng(k)
    to_lat, to_lon = 43 + rng.random(30) * 0.05, 141 + rng.random(30) * 0.05
    lat, lon = 43 + rng.random(50) * 0.06, 141 + rng.random(50) * 0.06
    lat[0], lon[0] = to_lat[3], to_lon[3]
    values = rng.normal(size=30)
    got = inverse_distance_mean(lat, lon, to_lat, to_lon, values, k=k, radius_m=radius_m)
    slow = _slow_mean(lat, lon, to_lat, to_lon, values, k, radius_m)
    assert np.isnan(got).any() == (radius_m < 1000)
    np.testing.assert_allclose(got, slow, rtol=1e-6, equal_nan=True)


def test_interpolated_price_is_a_geometric_mean():
    points = pd.DataFrame({"lat": [43.0, 43.0], "lon": [141.0, 141.01], "price_yen_m2": [100.0, 10_000.0]})
    assert interpolate_price([43.0], [141.005], points)[0] == pytest.approx(1_000, rel=1e-6)
    assert interpolate_price([43.0], [141.0], points)[0] == pytest.approx(100, rel=0.01)
    assert np.isnan(interpolate_price([44.0], [141.0], points)[0])
    assert np.isnan(interpolate_price([43.0], [141.0], points.iloc[:0])[0])


def test_price_scale():
    scale = PriceScale.of([np.exp(1.0), np.exp(3.0)])
    assert (scale.mean, scale.sd) == pytest.approx((2.0, 1.0))
    z = scale([np.exp(2.0), np.exp(4.0), np.nan])
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, [0, 2, np.nan], atol=1e-6)
