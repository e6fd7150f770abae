"""Raw OpenStreetMap data (.osm.pbf, .osm, .osm.gz, .osm.bz2) turned into layers of the OpenMapTiles schema.

The layers are FlatGeobuf files in Web Mercator with the names and fields that the map styles use. Unlike vector tiles
of zoom 13 they hold everything that is mapped: every building, footpath and service road. Images drawn from them are
therefore fuller than those drawn from generalised tiles, even in the same style.

The sea is not in the data, only coastlines are, with land on their left: the extract's rectangle is cut along them and
the pieces to their right are sea. Where an extract holds no coastline, as in the middle of a bay, sea is drawn as land.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from selm.errors import InputError, first_line
from selm.files import check_begins, written_folder
from selm.maps import mercator
from selm.maps.vector_tiles import message

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

VERSION = 2  # raised when the same extract gives other layers
XML_ENDINGS = (".osm", ".osm.gz", ".osm.bz2")
_CRS = "EPSG:3857"

# Tags that the layers are made from.
_KEYS = ("highway", "railway", "waterway", "natural", "landuse", "leisure", "building", "amenity", "aeroway",
         "man_made", "tourism", "military")  # fmt: skip
_EXTRA = ("area", "bridge", "tunnel", "layer", "service", "water", "wetland")

_ROADS = {
    "motorway": "motorway", "trunk": "trunk", "primary": "primary", "secondary": "secondary", "tertiary": "tertiary",
    "unclassified": "minor", "residential": "minor", "living_street": "minor", "road": "minor", "service": "service",
    "track": "track", "raceway": "raceway", "busway": "busway", "bus_guideway": "busway",
    "pedestrian": "path", "path": "path", "footway": "path", "cycleway": "path", "steps": "path", "bridleway": "path",
    "platform": "path",
}  # fmt: skip
_RAILWAYS = {
    "rail": "rail", "narrow_gauge": "rail", "preserved": "rail", "funicular": "rail",
    "subway": "transit", "light_rail": "transit", "tram": "transit", "monorail": "transit",
}  # fmt: skip
_LANDUSE = {
    "landuse": {"railway", "cemetery", "residential", "commercial", "industrial", "garages", "retail", "quarry",
                "military"},
    "amenity": {"school", "university", "kindergarten", "college", "hospital", "library", "bus_station"},
    "leisure": {"stadium", "pitch", "playground", "track"},
    "tourism": {"theme_park", "zoo"},
}  # fmt: skip
_LANDCOVER = {  # key → value → class; the subclass is the value
    "natural": {"wood": "wood", "wetland": "wetland", "sand": "sand", "beach": "sand", "dune": "sand",
                "bare_rock": "rock", "scree": "rock", "shingle": "rock", "glacier": "ice", "grassland": "grass",
                "heath": "grass", "scrub": "grass", "fell": "grass", "tundra": "grass"},
    "landuse": {"forest": "wood", "farmland": "farmland", "farm": "farmland", "orchard": "farmland",
                "vineyard": "farmland", "plant_nursery": "farmland", "allotments": "farmland", "grass": "grass",
                "meadow": "grass", "recreation_ground": "grass", "village_green": "grass", "flowerbed": "grass"},
    "leisure": {"park": "grass", "garden": "grass", "golf_course": "grass", "nature_reserve": ""},
}  # fmt: skip
_WATERWAYS = {"river", "canal", "stream", "ditch", "drain"}


def read_layers(file: Path, folder: Path) -> dict[str, Any]:
    """Make the layers of an extract in `folder`, or reuse those that are there; returns their description.

    The description has `layers` (names), `bounds` (west, south, east, north) and `keys` ([x, y] of the zoom-13 tiles
    with content). Raises InputError if the file is not OpenStreetMap data, is cut short, or holds nothing to draw.
    """
    description = folder / "layers.json"
    if description.exists():
        return dict(json.loads(description.read_text()))
    packed = file.name.lower().endswith(".pbf")
    declared = check_pbf(file) if packed else None
    frame = _read_pbf(file) if packed else _read_xml(file)
    west, south, east, north = (float(v) for v in frame.total_bounds)
    bounds = (west, south, east, north)
    if declared is not None and is_credible(declared, bounds):
        bounds = declared
    layers = to_layers(frame, bounds)
    keys = _tiles_with_content(layers, bounds)
    if not len(keys):
        raise InputError(f"{file}: nothing to draw in this extract (no roads, buildings, water or land use)")
    with written_folder(folder, replace=False) as temporary:
        for name, layer in layers.items():
            try:
                layer.to_file(temporary / f"{name}.fgb", driver="FlatGeobuf", engine="pyogrio")
            except RuntimeError as error:  # GDAL's, which seldom says why
                raise InputError(f"cannot write {folder}: {first_line(error)}; is the disk full?") from None
        text = json.dumps({"layers": sorted(layers), "bounds": bounds, "keys": keys.tolist()})
        (temporary / "layers.json").write_text(text)
    return dict(json.loads(description.read_text()))


def is_credible(declared: mercator.BBox, data: mercator.BBox) -> bool:
    """Whether a declared box can be what an extract was cut by: not one of the whole planet around one town."""

    def blocks(box: mercator.BBox) -> float:
        x0, y0 = mercator.to_tile(box[3], box[0], 13)
        x1, y1 = mercator.to_tile(box[1], box[2], 13)
        return float((x1 - x0 + 1) * (y1 - y0 + 1))

    west, south, east, north = declared
    return west < east and south < north and (blocks(declared) < 50_000 or blocks(declared) < 16 * blocks(data))


def check_pbf(file: Path) -> mercator.BBox | None:
    """The bounds that a .osm.pbf file gives in its header, or None; walks over all its blobs.

    Raises InputError if it is not such a file or ends in the middle of a blob.
    """
    size = file.stat().st_size
    bounds = None
    with file.open("rb") as stream:
        place = 0
        while place < size:
            try:
                (length,) = struct.unpack(">I", stream.read(4))
                if length > 64 * 1024:  # the format's own limit
                    raise ValueError
                header = dict(message(stream.read(length)))
                kind, content = header[1], header[3]
                if place == 0 and kind != b"OSMHeader":
                    raise ValueError
                assert isinstance(content, int)
            except (struct.error, ValueError, KeyError, AssertionError, IndexError):
                problem = "not an .osm.pbf file" if place == 0 else f"damaged or cut short at byte {place}"
                raise InputError(f"{file}: {problem}") from None
            data = stream.tell()
            if data + content > size:
                raise InputError(f"{file}: cut short ({size} bytes, {data + content} or more expected)")
            if place == 0:
                bounds = header_bounds(stream.read(content))
            place = data + content
            stream.seek(place)
    if not size:
        raise InputError(f"{file}: not an .osm.pbf file (empty)")
    return bounds


def _part(fields: dict[int, int | bytes], number: int) -> bytes:
    """The field of that number, which holds bytes; KeyError or ValueError otherwise."""
    value = fields[number]
    if not isinstance(value, bytes):
        raise ValueError("a number where a message should be")
    return value


def header_bounds(blob: bytes) -> mercator.BBox | None:
    try:
        packed = dict(message(blob))
        block = _part(packed, 1) if 1 in packed else zlib.decompress(_part(packed, 3))
        box = dict(message(_part(dict(message(block)), 1)))
        west, east, north, south = ((int(box[i]) >> 1) ^ -(int(box[i]) & 1) for i in (1, 2, 3, 4))  # zigzag
    except (KeyError, ValueError, IndexError, zlib.error):
        return None  # bounds are optional
    return west / 1e9, south / 1e9, east / 1e9, north / 1e9


def _read_pbf(file: Path) -> gpd.GeoDataFrame:
    """All drawn features of a .osm.pbf file with their tags as columns."""
    import pandas as pd
    import pyrosm

    if not file.name.endswith(".pbf"):  # pyrosm goes by the name
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "extract.osm.pbf"
            link.symlink_to(file.resolve())
            return _read_pbf(link)

    def features(custom_filter: dict[str, Any]) -> gpd.GeoDataFrame | None:
        # one object a reading: it keeps what it found for the first filter
        return pyrosm.OSM(str(file), keep_metadata=False, progress=False).get_data_by_custom_criteria(
            custom_filter=custom_filter,
            filter_type="keep",
            extra_attributes=list(_EXTRA),
            keep_nodes=False,
            keep_ways=True,
            keep_relations=True,
        )

    shared = tempfile.tempdir
    try:
        # pyrosm keeps results below the folder of temporary files that all users share, as whoever came first
        with tempfile.TemporaryDirectory() as tempfile.tempdir, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = features(dict.fromkeys(_KEYS, True))
            # Among others, pyrosm leaves out ways that are a coastline and nothing else.
            coast = features({"natural": ["coastline"]})
    except Exception as error:  # pyrosm has no exceptions of its own
        raise InputError(f"{file}: cannot be read as OpenStreetMap data ({first_line(error)[:160]})") from None
    finally:
        tempfile.tempdir = shared
    if coast is not None and len(coast):
        coast = coast[["natural", "geometry"]]
        if frame is None:
            frame = coast
        else:
            if "natural" in frame:
                frame["natural"] = frame["natural"].where(frame["natural"] != "coastline", None)
            frame = pd.concat([frame, coast])
    if frame is None or not len(frame):
        raise InputError(f"{file}: nothing to draw in this extract (no roads, buildings, water or land use)")
    return with_tag_columns(frame)


def _read_xml(file: Path) -> gpd.GeoDataFrame:
    """The same of OpenStreetMap XML, through GDAL's reader."""
    import geopandas as gpd
    import pandas as pd
    import pyogrio

    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = _plain_xml(file, Path(folder))
            with plain.open("rb") as text:
                check_begins(file, text, ".osm")
            frames = [_xml_layer(plain, name) for name in _XML_LAYERS]
        frame = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs="EPSG:4326")
    except (OSError, EOFError, zlib.error, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError,
            KeyError, RuntimeError, ElementTree.ParseError) as error:  # fmt: skip
        raise InputError(f"{file}: cannot be read as OpenStreetMap XML ({first_line(error)[:160]})") from None
    if not len(frame):
        raise InputError(f"{file}: nothing to draw in this extract (no roads, buildings, water or land use)")
    return with_tag_columns(frame)


_XML_LAYERS = ("lines", "multilinestrings", "multipolygons")
_ELEMENTS = ("node", "way", "relation")


def _xml_layer(file: Path, layer: str) -> gpd.GeoDataFrame:
    import pyogrio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = pyogrio.read_dataframe(str(file), layer=layer)
    for key in (*_KEYS, *_EXTRA):
        if key not in part:  # among the other tags, as "key"=>"value"
            part[key] = part["other_tags"].str.extract(f'"{key}"=>"([^"]*)"')[0]
    return part[[*_KEYS, *_EXTRA, "geometry"]]


def _plain_xml(file: Path, folder: Path) -> Path:
    """The extract as GDAL reads it: not packed, its elements in the order of their ids, none of these negative.

    Editors write negative ids, and elements in any order: such an extract is written anew, with other ids.
    """
    name = file.name.lower()
    kind: Any = gzip.open if name.endswith(".gz") else bz2.open if name.endswith(".bz2") else open
    plain = file.resolve()
    if kind is not open or not name.endswith(".osm"):  # GDAL would take what it can of a file that is cut short
        plain = folder / "extract.osm"
        with kind(file, "rb") as packed, plain.open("wb") as out:
            while piece := packed.read(2**22):
                out.write(piece)
    if not _is_in_order(plain):
        _write_in_order(plain, folder / "in-order.osm")
        plain = folder / "in-order.osm"
    return plain


def _is_in_order(file: Path) -> bool:
    """Whether nodes, ways and relations follow one another, each by ascending ids, none deleted in an editor."""
    last = (0, -1)
    pattern = re.compile(rb"<(node|way|relation)\s([^>]*)>")
    identity = re.compile(rb"""(?:^|\s)id\s*=\s*["'](-?\d+)["']""")
    with file.open("rb") as stream:
        rest = b""
        while piece := stream.read(2**22):
            rest += piece
            end = 0
            for found in pattern.finditer(rest):
                end = found.end()
                number = identity.search(found[2])
                if number is None:
                    continue
                here = (_ELEMENTS.index(found[1].decode()), int(number[1]))
                if here <= last or int(number[1]) < 0 or b"delete" in found[2] or b"false" in found[2]:
                    return False
                last = here
            rest = rest[max(end, len(rest) - 2**16) :]
    return True


def _write_in_order(file: Path, out: Path) -> None:
    """An OpenStreetMap XML file with new ids, from 1 on in the order of the old ones, and without what is deleted."""
    elements: dict[str, dict[int, ElementTree.Element]] = {kind: {} for kind in _ELEMENTS}
    for _, element in ElementTree.iterparse(file):
        if element.tag in elements:
            identity = int(element.attrib["id"])
            if element.get("action") == "delete" or element.get("visible") == "false":
                elements[element.tag].pop(identity, None)
            else:
                elements[element.tag][identity] = element
    number = {kind: {old: new for new, old in enumerate(sorted(those), 1)} for kind, those in elements.items()}
    with out.open("wb") as stream:
        stream.write(b'<osm version="0.6">\n')
        for kind in _ELEMENTS:
            for old, new in number[kind].items():
                element = elements[kind][old]
                element.set("id", str(new))
                for part in list(element):
                    of = {"nd": "node", "member": part.get("type", "")}.get(part.tag)
                    if of is None:
                        continue
                    there = number.get(of, {}).get(int(part.get("ref", "0")))
                    if there is None:
                        element.remove(part)
                    else:
                        part.set("ref", str(there))
                stream.write(ElementTree.tostring(element))
        stream.write(b"</osm>\n")


def with_tag_columns(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    frame = frame.reindex(columns=[*_KEYS, *_EXTRA, "geometry"])
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty].copy()
    for key in (*_KEYS, *_EXTRA):  # a tag that never occurs would come as a column of numbers, all NaN
        frame[key] = frame[key].astype(object).where(frame[key].notna(), None)
    # The readers' order may depend on hashing or threads; features drawn later lie above, so fix it.
    order = frame.geometry.to_wkb().argsort(kind="stable")
    return frame.iloc[order].reset_index(drop=True).set_crs("EPSG:4326", allow_override=True)


def to_layers(frame: gpd.GeoDataFrame, bounds: mercator.BBox) -> dict[str, gpd.GeoDataFrame]:
    """Layers of the OpenMapTiles schema (Web Mercator) from features in degrees with tag columns; no empty ones."""
    import geopandas as gpd
    import pandas as pd

    is_area = frame.geom_type.isin(["Polygon", "MultiPolygon"])
    areas, lines = frame[is_area], frame[~is_area]
    brunnel = pd.Series(None, index=frame.index, dtype=object)
    brunnel[frame["tunnel"].notna() & (frame["tunnel"] != "no")] = "tunnel"
    brunnel[frame["bridge"].notna() & (frame["bridge"] != "no")] = "bridge"

    layers: dict[str, list[gpd.GeoDataFrame]] = {}

    def add(layer: str, part: gpd.GeoDataFrame, kind: pd.Series, **fields: pd.Series) -> None:
        part, kind = part[kind.notna()], kind.dropna()
        if len(part):
            columns = {"class": kind.astype(str)} | {name: value[part.index] for name, value in fields.items()}
            layers.setdefault(layer, []).append(gpd.GeoDataFrame(columns, geometry=part.geometry, crs=frame.crs))

    # Ways. A closed street comes as a polygon: it is an area only if it says so or is a pedestrian one.
    link = frame["highway"].str.endswith("_link").fillna(False).astype(bool)
    road = frame["highway"].str.removesuffix("_link").map(_ROADS)
    ramp = link.astype(int)
    closed = road[areas.index]
    ring = closed.notna() & (areas["area"] != "yes") & ~areas["highway"].isin(["pedestrian", "platform"])
    rings = areas[ring].copy()
    rings.geometry = rings.geometry.boundary
    add("transportation", lines, road[lines.index], brunnel=brunnel, ramp=ramp)
    add("transportation", rings, road[rings.index], brunnel=brunnel, ramp=ramp)
    add("transportation", areas[~ring], closed[~ring].where(closed[~ring] == "path"), brunnel=brunnel, ramp=ramp)
    add("transportation", lines, lines["railway"].map(_RAILWAYS), brunnel=brunnel, ramp=ramp)
    platform = areas["railway"].where(areas["railway"] == "platform").replace("platform", "path")
    add("transportation", areas, platform, brunnel=brunnel, ramp=ramp)
    pier = frame["man_made"].where(frame["man_made"] == "pier")
    add("transportation", frame, pier, brunnel=brunnel, ramp=ramp)

    # Areas.
    add("building", areas, areas["building"].where(areas["building"] != "no"))
    for key, values in _LANDUSE.items():
        add("landuse", areas, areas[key].where(areas[key].isin(values)))
    military = areas["military"].notna() & (areas["landuse"] != "military") & areas["building"].isna()
    add("landuse", areas, military.map({True: "military"}))
    for key, classes in _LANDCOVER.items():
        add("landcover", areas, areas[key].map(classes).replace("", None), subclass=areas[key])
    still = (
        (areas["natural"] == "water")
        | areas["waterway"].isin(["riverbank", "dock"])
        | areas["landuse"].isin(["reservoir", "basin"])
        | (areas["leisure"] == "swimming_pool")
    )
    water = pd.Series("lake", index=areas.index).where(still)
    water[still & (areas["water"].isin(["river", "canal", "stream"]) | (areas["waterway"] == "riverbank"))] = "river"
    add("water", areas, water, brunnel=brunnel)
    add("waterway", lines, lines["waterway"].where(lines["waterway"].isin(_WATERWAYS)), brunnel=brunnel)
    add("aeroway", areas, areas["aeroway"].where(areas["building"].isna()))
    add("aeroway", lines, lines["aeroway"].where(lines["aeroway"].isin(["runway", "taxiway"])))

    coast = frame[frame["natural"] == "coastline"].geometry
    sea = sea_polygons([g.boundary if "Polygon" in g.geom_type else g for g in coast], bounds)
    if sea:
        geometry = gpd.GeoSeries(sea, crs=frame.crs)
        layers.setdefault("water", []).append(
            gpd.GeoDataFrame({"class": "ocean", "brunnel": None}, index=geometry.index, geometry=geometry)
        )
    out = {name: pd.concat(parts, ignore_index=True).to_crs(_CRS) for name, parts in layers.items()}
    if "landcover" in out:  # small areas above the large ones that hold them
        out["landcover"] = out["landcover"].iloc[(-out["landcover"].area).argsort(kind="stable")]
    return out


def sea_polygons(coastlines: list[Any], bounds: mercator.BBox) -> list[Any]:
    """The parts of `bounds` that are sea: to the right of directed coastlines (shapely lines, degrees).

    Extracts cut ways at their last node inside: a coastline that ends near the border, within 0.005 degrees and a tenth
    of the shorter side, is led to it.
    A piece that coastlines call sea and land by turns, because some are missing, goes by the longer stretch.
    """
    import shapely

    box = shapely.box(*bounds)
    inside = shapely.intersection(np.array(coastlines, object), box) if coastlines else []
    reach = min(0.005, 0.1 * min(bounds[2] - bounds[0], bounds[3] - bounds[1]))
    pieces = [part for part in shapely.get_parts(inside) if part.geom_type == "LineString" and not part.is_empty]
    if not pieces:
        return []
    parts = []
    for part in shapely.get_parts(shapely.line_merge(shapely.multilinestrings(pieces), directed=True)):
        line = shapely.get_coordinates(part)
        if not part.is_closed:
            first, last = (_border_near(end, box, reach) for end in (line[0], line[-1]))
            line = np.concatenate([first, line, last])
        parts.append(shapely.linestrings(line))
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.union_all([*parts, box.exterior]))))
    ends, part_of = shapely.get_coordinates(parts, return_index=True)
    same = part_of[1:] == part_of[:-1]
    start, step = ends[:-1][same], np.diff(ends, axis=0)[same]
    length = np.hypot(*step.T)
    start, step, length = start[length > 0], step[length > 0], length[length > 0]
    aside = np.stack([step[:, 1], -step[:, 0]], 1) / length[:, None] * 1e-8  # about a millimetre to the right
    tree = shapely.STRtree(faces)
    votes = np.zeros(len(faces))
    for sign in (1, -1):
        point, face = tree.query(shapely.points(start + step / 2 + sign * aside), predicate="within")
        np.add.at(votes, face, sign * length[point])
    return [face for face, vote in zip(faces, votes, strict=True) if vote > 0]


def _border_near(end: NDArray[np.float64], box: Any, reach: float) -> NDArray[np.float64]:
    """(1, 2): the point of the box's border nearest to `end` if within `reach` and not `end` itself; else (0, 2)."""
    import shapely

    bridge = shapely.shortest_line(box.exterior, shapely.points(end))
    if 0 < bridge.length <= reach:
        return shapely.get_coordinates(bridge)[:1]
    return np.zeros((0, 2))


def _tiles_with_content(layers: dict[str, gpd.GeoDataFrame], bounds: mercator.BBox) -> NDArray[np.int32]:
    """int32 (N, 2): the zoom-13 tiles within `bounds` that any feature touches, sorted."""
    import shapely

    west, south, east, north = bounds
    x0, y0 = (int(np.floor(v)) for v in mercator.to_tile(north, west, 13))
    x1, y1 = (int(np.floor(v)) for v in mercator.to_tile(south, east, 13))
    trees = [shapely.STRtree(layer.geometry.to_numpy()) for layer in layers.values()]
    first = max(0, 13 - max(x1 - x0, y1 - y0, 1).bit_length())  # the bounds lie on four tiles of it at most
    x, y = (np.arange(a >> (13 - first), (b >> (13 - first)) + 1) for a, b in ((x0, x1), (y0, y1)))
    keys = np.stack([a.ravel() for a in np.meshgrid(x, y, indexing="ij")], 1)
    for zoom in range(first, 14):  # a tile without content has none of the next zoom with content
        side = mercator.EQUATOR_M / 2**zoom
        left, top = keys[:, 0] * side - mercator.EQUATOR_M / 2, mercator.EQUATOR_M / 2 - keys[:, 1] * side
        more = 0.0 if zoom == 13 else 1.0  # a metre, for edges
        boxes = shapely.box(left - more, top - side - more, left + side + more, top + more)
        touched = np.zeros(len(boxes), bool)
        for tree in trees:
            touched[tree.query(boxes, predicate="intersects")[0]] = True
        keys = keys[touched]
        if zoom < 13:
            quarters = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
            keys = (keys[:, None] * 2 + quarters).reshape(-1, 2)
            lowest, highest = (np.array(v) >> (12 - zoom) for v in ((x0, y0), (x1, y1)))
            keys = keys[((keys >= lowest) & (keys <= highest)).all(1)]
    return keys[np.lexsort((keys[:, 1], keys[:, 0]))].astype(np.int32)
