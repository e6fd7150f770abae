"""Population meshes of both generations, as GeoJSON and as shapefiles in CP932."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from reproduction.labels.mesh import mesh_bounds
from reproduction.labels.population import density_at
from reproduction.labels.population_mesh import read_population_mesh
from selm.errors import InputError

geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")
pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided")

SAPPORO, TOKYO = "644142883", "533946113"


def zipped(folder: Path, suffix: str, **columns: list) -> Path:
    meshes = columns["MESH_ID"]
    boxes = [shapely.box(*mesh_bounds(TOKYO))] * len(meshes)  # outlines are made from the codes, not read
    table = geopandas.GeoDataFrame(columns, geometry=boxes, crs=None if suffix == ".shp" else "EPSG:6668")
    folder.mkdir(exist_ok=True)
    table.to_file(folder / f"500m_mesh_2024_13{suffix}", encoding="cp932" if suffix == ".shp" else None)
    path = folder / f"500m_mesh_2024_13_{suffix[1:].upper()}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.glob("500m_mesh_2024_13.*")):
            if file.suffix not in (".prj", ".cpg"):
                archive.write(file, f"500m_mesh_2024_13/{file.name}")
    return path


@pytest.mark.parametrize("suffix", [".geojson", ".shp"])
@pytest.mark.parametrize(("first", "later"), [("POP2010", "POP2050"), ("PTN_2020", "PTN_2070")])
def test_both_generations(tmp_path, suffix, first, later):
    path = zipped(tmp_path / "x", suffix, MESH_ID=[TOKYO, SAPPORO], SHICODE=["13103", "01101"],
                  **{first: [2500.5, 100.25], later: [1.0, 2.0]})  # fmt: skip
    squares = read_population_mesh(path)
    assert squares["mesh"].tolist() == [TOKYO, SAPPORO]  # by code
    assert squares["people"].tolist() == [2500.5, 100.25]
    assert squares.total_bounds[3] == pytest.approx(mesh_bounds(SAPPORO)[3])


def test_density_divides_by_the_area_at_the_latitude(tmp_path):
    pyproj = pytest.importorskip("pyproj")
    path = zipped(tmp_path / "x", ".geojson", MESH_ID=[TOKYO, SAPPORO], PTN_2020=[100.0, 100.0])
    squares = read_population_mesh(path)
    geod = pyproj.Geod(ellps="GRS80")
    for row, code in enumerate((TOKYO, SAPPORO)):
        west, south, east, north = mesh_bounds(code)
        # along parallels, in small steps: the edges of a polygon would be geodesics
        lon = np.linspace(west, east, 200)
        area, _ = geod.polygon_area_perimeter([*lon, *lon[::-1]], [south] * 200 + [north] * 200)
        assert squares["density"].iloc[row] == pytest.approx(100 / (abs(area) / 1e6), rel=1e-6)
    assert squares["density"].iloc[1] > 1.09 * squares["density"].iloc[0]  # squares are narrower in the north
    west, south, east, north = mesh_bounds(SAPPORO)
    at = density_at([(south + north) / 2, 0.0], [(west + east) / 2, 0.0], squares)
    assert at[0] == squares["density"].iloc[1] and np.isnan(at[1])


def test_the_command_shows_squares(tmp_path, shown):
    path = zipped(tmp_path / "x", ".shp", MESH_ID=[TOKYO, SAPPORO], PTN_2020=[2500.5, 100.25])
    lines = shown("population-mesh", path)
    assert lines[0] == "2 rows of density, people, mesh, geometry"
    assert lines[1].endswith(
        f"{mesh_bounds(SAPPORO)[3]:.4f} N, {mesh_bounds(TOKYO)[0]:.4f} to {mesh_bounds(SAPPORO)[2]:.4f} E"
    )
    assert lines[3].split()[1:] == ["2500.50", TOKYO]


def test_a_square_of_two_municipalities_is_summed(tmp_path):
    path = zipped(tmp_path / "x", ".geojson", MESH_ID=[TOKYO, TOKYO], SHICODE=["13103", "13104"], PTN_2020=[1.5, 2.0])
    assert read_population_mesh(path)["people"].tolist() == [3.5]


def test_codes_as_numbers(tmp_path):
    path = zipped(tmp_path / "x", ".shp", MESH_ID=[float(TOKYO)], PTN_2020=[1.5])
    assert read_population_mesh(path)["mesh"].tolist() == [TOKYO]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"MESH_ID": [TOKYO, "12"], "PTN_2020": [1.0, 2.0]}, "row 2, field MESH_ID: '12' is not a JIS X 0410"),
        ({"MESH_ID": [TOKYO, SAPPORO], "PTN_2020": [1.0, -2.0]}, "row 2, field PTN_2020: -2.0 cannot be people"),
        ({"MESH_ID": [TOKYO, SAPPORO], "PTN_2020": [None, 1.0]}, "row 1, field PTN_2020: nan cannot be people"),
        ({"MESH_ID": [TOKYO], "OTHER": [1.0]}, "no field of people"),
    ],
)
def test_errors_name_row_and_field(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        read_population_mesh(zipped(tmp_path / "x", ".geojson", **columns))


def test_missing_mesh_field(tmp_path):
    path = tmp_path / "mesh.geojson"
    geopandas.GeoDataFrame({"PTN_2020": [1.0]}, geometry=[shapely.Point(139, 36)], crs="EPSG:6668").to_file(path)
    with pytest.raises(InputError, match="field MESH_ID is missing"):
        read_population_mesh(path)
