"""Raw OpenStreetMap data: tags to the OpenMapTiles schema, and the sea from coastlines."""

from __future__ import annotations

import pytest

pytest.importorskip("geopandas")
import geopandas as gpd
import numpy as np
from shapely import affinity
from shapely.geometry import LineString, Point, Polygon

from selm.maps import osm, vector_tiles

BOUNDS = (0.0, 0.0, 1.0, 1.0)


def layers_of(*features: tuple[object, dict[str, str]]) -> dict[str, gpd.GeoDataFrame]:
    rows = [tags | {"geometry": geometry} for geometry, tags in features]
    frame = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    return osm.to_layers(osm.with_tag_columns(frame), BOUNDS)


LINE = LineString([(0.1, 0.1), (0.9, 0.9)])
SQUARE = Polygon([(0.2, 0.2), (0.4, 0.2), (0.4, 0.4), (0.2, 0.4)])


@pytest.mark.parametrize(
    ("tags", "layer", "expected"),
    [
        ({"highway": "motorway"}, "transportation", {"class": "motorway", "ramp": 0}),
        ({"highway": "primary_link"}, "transportation", {"class": "primary", "ramp": 1}),
        ({"highway": "residential", "tunnel": "yes"}, "transportation", {"class": "minor", "brunnel": "tunnel"}),
        ({"highway": "service", "bridge": "viaduct"}, "transportation", {"class": "service", "brunnel": "bridge"}),
        ({"highway": "steps"}, "transportation", {"class": "path"}),
        ({"railway": "rail"}, "transportation", {"class": "rail"}),
        ({"railway": "tram"}, "transportation", {"class": "transit"}),
        ({"man_made": "pier"}, "transportation", {"class": "pier"}),
        ({"waterway": "river"}, "waterway", {"class": "river"}),
        ({"aeroway": "runway"}, "aeroway", {"class": "runway"}),
    ],
)
def test_lines(tags: dict[str, str], layer: str, expected: dict[str, object]) -> None:
    layers = layers_of((LINE, tags))
    assert set(layers) == {layer} and len(layers[layer]) == 1
    assert layers[layer].iloc[0][list(expected)].to_dict() == expected
    assert layers[layer].crs.to_epsg() == 3857


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"building": "yes"}, [("building", "yes")]),
        ({"building": "no"}, []),
        ({"landuse": "retail"}, [("landuse", "retail")]),
        ({"amenity": "school"}, [("landuse", "school")]),
        ({"amenity": "school", "building": "school"}, [("building", "school"), ("landuse", "school")]),
        ({"leisure": "park"}, [("landcover", "grass")]),
        ({"landuse": "forest"}, [("landcover", "wood")]),
        ({"natural": "wetland"}, [("landcover", "wetland")]),
        ({"natural": "water"}, [("water", "lake")]),
        ({"natural": "water", "water": "river"}, [("water", "river")]),
        ({"waterway": "riverbank"}, [("water", "river")]),
        ({"highway": "pedestrian"}, [("transportation", "path")]),
        ({"leisure": "nature_reserve"}, []),
        ({"landuse": "military"}, [("landuse", "military")]),
        ({"military": "barracks", "building": "yes"}, [("building", "yes")]),
        ({"highway": "construction"}, []),
        ({"railway": "abandoned"}, []),
    ],
)
def test_areas(tags: dict[str, str], expected: list[tuple[str, str]]) -> None:
    found = [(name, kind) for name, layer in layers_of((SQUARE, tags)).items() for kind in layer["class"]]
    assert sorted(found) == expected


def test_closed_streets_are_lines_unless_they_say_area() -> None:
    loop = layers_of((SQUARE, {"highway": "residential"}))["transportation"]
    assert loop.geom_type.tolist() == ["LineString"] and loop["class"].tolist() == ["minor"]
    square = layers_of((SQUARE, {"highway": "footway", "area": "yes"}))["transportation"]
    assert square.geom_type.tolist() == ["Polygon"]
    assert not layers_of((SQUARE, {"highway": "service", "area": "yes"}))  # a yard, not a street


def area_of_sea(*coastlines: LineString) -> float:
    return float(sum(piece.area for piece in osm.sea_polygons(list(coastlines), BOUNDS)))


def test_land_is_left_of_a_coastline() -> None:
    north = LineString([(0.5, -0.1), (0.5, 1.1)])  # going north: land in the west
    sea = osm.sea_polygons([north], BOUNDS)
    assert len(sea) == 1 and sea[0].contains(Point(0.75, 0.5)) and sea[0].area == pytest.approx(0.5)
    sea = osm.sea_polygons([north.reverse()], BOUNDS)
    assert len(sea) == 1 and sea[0].contains(Point(0.25, 0.5))


def test_islands_and_lagoons() -> None:
    ring = [(0.2, 0.2), (0.4, 0.2), (0.4, 0.4), (0.2, 0.4), (0.2, 0.2)]  # anticlockwise: land inside
    assert area_of_sea(LineString(ring)) == pytest.approx(1 - 0.04)
    assert area_of_sea(LineString(ring[::-1])) == pytest.approx(0.04)
    island = LineString([(x + 0.4, y) for x, y in ring])
    shore = LineString([(0.5, 1.1), (0.5, -0.1)])  # going south: land in the east
    # The island lies on land's side and cuts nothing; an island at sea is taken out.
    at_sea = LineString(ring)
    assert area_of_sea(shore, at_sea) == pytest.approx(0.5 - 0.04)
    assert area_of_sea(shore.reverse(), island) == pytest.approx(0.5 - 0.04)


def test_coastlines_in_pieces_and_short_of_the_border() -> None:
    pieces = [LineString([(0.5, 0.0004), (0.5, 0.3)]), LineString([(0.5, 0.3), (0.6, 0.5), (0.5, 0.9996)])]
    sea = osm.sea_polygons(pieces, BOUNDS)
    assert len(sea) == 1 and sea[0].contains(Point(0.9, 0.5)) and not sea[0].contains(Point(0.55, 0.5))
    near = [LineString([(0.5, 0.004), (0.5, 0.9951)])]
    assert area_of_sea(*near) == pytest.approx(0.5)
    assert osm.sea_polygons([LineString([(0.5, 0.006), (0.5, 0.994)])], BOUNDS) == []
    # A coastline that just ends inside bounds nothing: land is drawn rather than a guess.
    assert osm.sea_polygons([LineString([(0.5, 0.2), (0.5, 0.8)])], BOUNDS) == []
    assert osm.sea_polygons([], BOUNDS) == []
    assert osm.sea_polygons([LineString([(2, 2), (3, 3)])], BOUNDS) == []


def test_extracts_of_a_few_hundred_metres_lead_coastlines_to_the_border_less_far() -> None:
    small = (0.0, 0.0, 0.01, 0.02)
    assert len(osm.sea_polygons([LineString([(0.005, 0.0009), (0.005, 0.0192)])], small)) == 1
    assert osm.sea_polygons([LineString([(0.005, 0.002), (0.005, 0.018)])], small) == []


@pytest.mark.realdata
def test_the_rivers_around_manhattan_are_water(real, tmp_path) -> None:
    """They are coastlines in OpenStreetMap, which pyrosm leaves out among other features; the extract cuts them."""
    pytest.importorskip("pyrosm")
    description = osm.read_layers(real("osm-newyork/lower-manhattan.osm.pbf"), tmp_path / "layers")
    import geopandas

    water = geopandas.read_file(tmp_path / "layers" / "water.fgb").to_crs(4326)
    sea = water[water["class"] == "ocean"].union_all()
    for lat, lon, wet in (
        (40.7200, -74.0200, True),  # the Hudson
        (40.7060, -73.9965, True),  # the East River under Brooklyn Bridge
        (40.7000, -74.0200, True),  # the Upper Bay
        (40.7128, -74.0060, False),  # City Hall
        (40.7033, -73.9881, False),  # DUMBO, Brooklyn
        (40.7270, -73.9800, False),  # East Village
    ):
        assert sea.contains(Point(lon, lat)) == wet, (lat, lon)
    west, south, east, north = description["bounds"]
    assert 0.25 < sea.area / ((east - west) * (north - south)) < 0.5


def test_sea_reaches_the_water_layer() -> None:
    layers = layers_of(
        (LineString([(0.5, -0.1), (0.5, 1.1)]), {"natural": "coastline"}), (SQUARE, {"natural": "water"})
    )
    assert sorted(layers["water"]["class"]) == ["lake", "ocean"]


def test_layers_do_not_depend_on_the_order_of_features() -> None:
    rng = np.random.default_rng(0)
    squares = [affinity.translate(SQUARE, *rng.uniform(-0.2, 0.5, 2)) for _ in range(20)]
    features = [(square, {"leisure": "park"}) for square in squares]
    one, two = layers_of(*features)["landcover"], layers_of(*features[::-1])["landcover"]
    assert (one.geometry.to_wkb() == two.geometry.to_wkb()).all()
    assert (np.diff(one.area) <= 0).all()  # large ones first, small ones above them


def test_protocol_buffers() -> None:
    message = bytes([0x08, 0x96, 0x01, 0x12, 0x03]) + b"abc"  # the encoding guide's own example: field 1 is 150
    assert dict(vector_tiles.message(message)) == {1: 150, 2: b"abc"}
    with pytest.raises(ValueError, match="cut short"):
        dict(vector_tiles.message(message[:-1]))


def test_a_header_with_a_number_where_a_message_should_be_has_no_bounds() -> None:
    assert osm.header_bounds(bytes([0x08, 0x01])) is None  # field 1, a varint
    assert osm.header_bounds(b"") is None
