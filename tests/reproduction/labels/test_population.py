"""Densities against areas worked out by hand; exact k-means against a slow program and a search of all borders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reproduction.labels import population
from selm.errors import InputError

AREAS = "population-estat-2015.parquet"


def test_areas_read_by_hand(real):
    """85 people on 61,292.155 m² (平字堂根町, Iwaki), 4,980 on 822,122.658 m² (野幌若葉町, Ebetsu), nobody in 円山."""
    areas = population.read_areas(real(AREAS))
    assert len(areas) == 91_219
    lat, lon = [37.05099, 43.08370, 43.04868, 43.5], [140.89089, 141.52507, 141.31399, 143.9]
    density = population.density_at(lat, lon, areas)
    np.testing.assert_allclose(density[:3], [85 / 0.061292155, 4_980 / 0.822122658, 0.0], rtol=1e-9)
    assert np.isnan(density[3])  # mountains: no area


def test_density_is_that_of_a_slow_search(real):
    shapely = pytest.importorskip("shapely")
    areas = population.read_areas(real(AREAS)).iloc[:800]
    west, south, east, north = areas.total_bounds
    rng = np.random.default_rng(0)
    lat, lon = south + rng.random(60) * (north - south), west + rng.random(60) * (east - west)
    slow = []
    for a, o in zip(lat, lon, strict=True):
        hits = [d for d, g in zip(areas["density"], areas.geometry, strict=True) if g.intersects(shapely.Point(o, a))]
        slow.append(hits[0] if hits else np.nan)
    assert 5 < np.isfinite(slow).sum() < 60
    np.testing.assert_allclose(population.density_at(lat, lon, areas), slow, equal_nan=True)


def _areas(tmp_path, people=(100, 50), area=(1e6, 2e6), columns=("JINKO", "AREA")):
    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    outlines = [
        shapely.box(141.0, 43.0, 141.1, 43.1),
        shapely.GeometryCollection([shapely.box(141.1, 43.0, 141.3, 43.1), shapely.LineString([(141, 42), (142, 42)])]),
    ]
    table = geopandas.GeoDataFrame(dict(zip(columns, (people, area), strict=True)), geometry=outlines, crs="EPSG:6668")
    path = tmp_path / "areas.parquet"
    table.to_parquet(path)
    return path


def test_density_at_corner_cases(tmp_path):
    areas = population.read_areas(_areas(tmp_path))
    # inside each, on the common border (the first counts), on the stray line, outside
    density = population.density_at([43.05] * 3 + [42.0, 44.0], [141.05, 141.2, 141.1, 141.5, 141.0], areas)
    np.testing.assert_allclose(density, [100, 25, 100, np.nan, np.nan])
    assert population.municipality_at([43.05], [141.05], areas).tolist() == [""]  # the file has no codes


def test_bad_areas(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: no such file"):
        population.read_areas(tmp_path / "none.parquet")
    rubbish = tmp_path / "rubbish.parquet"
    rubbish.write_text("not parquet")
    with pytest.raises(InputError, match=r"rubbish\.parquet: not a readable table") as error:
        population.read_areas(rubbish)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="field AREA is missing"):
        population.read_areas(_areas(tmp_path, columns=("JINKO", "area")))
    with pytest.raises(InputError, match=r"row 2, field AREA: 0\.0 cannot be used"):
        population.read_areas(_areas(tmp_path, area=(1e6, 0.0)))
    with pytest.raises(InputError, match="row 1, field JINKO: -5 cannot be used"):
        population.read_areas(_areas(tmp_path, people=(-5, 1)))


# Exact k-means


def _scatter(values):
    return float(((values - values.mean()) ** 2).sum())


def _slow_least_scatter(values, k):
    """The least sum of squares over all ways to cut the sorted values into k runs."""
    x = np.sort(values)
    cuts = itertools.combinations(range(1, len(x)), k - 1)
    return min(sum(_scatter(part) for part in np.split(x, cut)) for cut in cuts)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_kmeans_is_the_best_of_all_partitions(seed, k):
    values = np.random.default_rng(seed).lognormal(size=13)
    centres = population.kmeans_1d(values, k)
    got = ((values[:, None] - centres) ** 2).min(1).sum()
    assert len(centres) == k
    assert (np.diff(centres) > 0).all()
    assert got == pytest.approx(_slow_least_scatter(values, k), rel=1e-9)


@pytest.mark.parametrize("k", [7, 30])
def test_kmeans_is_a_plain_dynamic_program(k):
    values = np.round(np.random.default_rng(k).lognormal(3, 2, size=70), 1)  # with repeated values
    x = np.sort(values)
    n = len(x)
    best = np.full((k + 1, n + 1), np.inf)
    best[0, 0] = 0.0
    for groups in range(1, k + 1):
        for end in range(1, n + 1):
            best[groups, end] = min(best[groups - 1, s] + _scatter(x[s:end]) for s in range(end))
    centres = population.kmeans_1d(values, k)
    assert ((values[:, None] - centres) ** 2).min(1).sum() == pytest.approx(best[k, n], rel=1e-9)


def test_kmeans_beats_or_ties_scikit_learn():
    from sklearn.cluster import KMeans

    values = np.random.default_rng(1).normal(size=500)
    ours = ((values[:, None] - population.kmeans_1d(values, 30)) ** 2).min(1).sum()
    theirs = KMeans(30, n_init=3, random_state=0).fit(values[:, None]).inertia_
    assert ours <= theirs * (1 + 1e-9)


def test_classes_do_not_depend_on_order_or_repetition():
    rng = np.random.default_rng(2)
    density = np.append(rng.lognormal(7, 2, 500), [0.0, 0.0, np.nan])
    classes, centres = population.density_classes(density, 8)
    assert classes[-1] == -1
    assert sorted(np.unique(classes[:-1])) == list(range(8))
    assert classes[density == 0].max() == 0
    order = rng.permutation(len(density))
    again, centres_again = population.density_classes(density[order], 8)
    np.testing.assert_allclose(centres, centres_again, rtol=1e-12)
    assert np.array_equal(classes[order], again)
    nearest = np.abs(np.log1p(density[:-1])[:, None] - centres).argmin(1)
    assert np.array_equal(classes[:-1], nearest)
    assert np.array_equal(population.assign(density, centres), classes)


def test_fewer_values_than_classes():
    classes, centres = population.density_classes([5.0, 5.0, 9.0], 30)
    assert len(centres) == 2
    assert classes.tolist() == [0, 0, 1]
    with pytest.raises(InputError, match="no values to cluster"):
        population.density_classes([np.nan], 3)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_an_official_zip_of_e_stat(tmp_path):
    """A shapefile in CP932 without .prj and .cpg in a zip, as the census areas of 2015 come."""
    import zipfile

    geopandas = pytest.importorskip("geopandas")
    shapely = pytest.importorskip("shapely")
    table = geopandas.GeoDataFrame(
        {"KEY_CODE": ["131010010"], "S_NAME": ["千代田区丸の内"], "JINKO": [2000], "AREA": [500_000.0]},
        geometry=[shapely.box(139.76, 35.68, 139.77, 35.69)],
    )
    table.to_file(tmp_path / "h27ka13.shp", encoding="cp932")
    path = tmp_path / "small-areas-2015-13.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tmp_path.glob("h27ka13.*")):
            if file.suffix not in (".prj", ".cpg"):
                archive.write(file, file.name)
    areas = population.read_areas(path)
    assert areas["density"].tolist() == [4000.0]
    assert population.density_at([35.685], [139.765], areas).tolist() == [4000.0]
    assert population.municipality_at([35.685, 35.7], [139.765, 139.765], areas).tolist() == ["13101", ""]
    metres = table.set_geometry([shapely.box(-6000, -35000, -5000, -34000)])
    metres.to_file(tmp_path / "r2ka13.shp", encoding="cp932")
    (tmp_path / "r2ka13.prj").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"r2ka13\.shp has no \.prj and its coordinates are no degrees"):
        population.read_areas(tmp_path / "r2ka13.shp")
