"""The locations table: coordinates sampled on the map, or of official points, with their splits and labels.

Columns: `lat lon` float64 degrees; `region`; `split` (pretrain, set-aside, validation or test); `cell` of the
geographic split; `entropy` float32 bits of the image; `price` float32 standardised natural log of yen/m² (NaN: none
known); `price_yen_m2`; `density` people/km² (NaN: none known), `density_class` int64 (-1); `area_type` int64 (-1), a
code into ``attrs["area_types"]``; `zone` int64 merged use district (-1); `land_cover` int64 (-1). With stand-ins
`price` is that of `amenity_access`, `density` is `floor_area`, and both are columns of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reproduction.labels import area_type, population, stand_ins
from reproduction.labels.land_cover import land_cover
from reproduction.labels.land_price import PriceScale, interpolate_price
from reproduction.places import splits
from reproduction.places.regions import census_areas, land_prices, official_points, source_of
from reproduction.places.sampling import Allowed, sample_places
from reproduction.settings import Profile, Region
from selm.maps.atlas import Atlas
from selm.maps.entropy import entropy_at


def build_places(
    profile: Profile,
    atlases: Mapping[str, Atlas],
    *,
    seed: int = 0,
    n: int | None = None,
    land_cover_atlases: Mapping[str, Atlas] | None = None,
) -> pd.DataFrame:
    """The pretraining locations with their labels: `n` (default: the profile's) places of the pretraining regions.

    They are spread over the regions by their number of blocks; none lies in a set-aside cell or its buffer. Prices are
    interpolated from official points outside those cells and buffers only. `land_cover` is -1 without atlases in that
    style. ``attrs`` (JSON-able): `price_mean price_sd` of ln yen/m² over the pretraining points, `density_centres`
    (ln(1 + people/km²)), `area_types` and `zones` (names of the codes), `keep_rate` and `candidates` by region,
    `with_price`, `with_density` (shares), `stand_ins`.
    """
    folds = splits.read_folds(profile)
    regions = profile.regions_for("pretrain")
    shares = apportion(n or profile.pretraining.n_places, [len(atlases[region.name].keys) for region in regions])
    zoom = profile.maps.zooms[0]
    parts = []
    for region, share in zip(regions, shares, strict=True):
        part = sample_places(
            atlases[region.name], share, seed,
            region=region.name, zoom=zoom, entropy_threshold=profile.maps.entropy_threshold,
            allowed=_in_split(profile, region, "pretrain", folds),
        )  # fmt: skip
        parts.append(part)
    keep_rate = {region.name: part.attrs["keep_rate"] for region, part in zip(regions, parts, strict=True)}
    candidates = {region.name: part.attrs["candidates"] for region, part in zip(regions, parts, strict=True)}
    table = pd.concat(parts, ignore_index=True)
    table.insert(3, "split", "pretrain")
    table.insert(4, "cell", splits.cell_of(table["lat"], table["lon"], profile.maps.cell_degrees))
    if profile.stand_ins:
        table = _with_stand_ins(profile, table)
    else:
        table = _with_official(profile, atlases, table, folds)
    table = _with_land_cover(table, land_cover_atlases, zoom)
    table.attrs |= {
        "keep_rate": keep_rate,
        "candidates": candidates,
        "with_price": float(table["price"].notna().mean()),
        "with_density": float(table["density"].notna().mean()),
        "stand_ins": profile.stand_ins,
    }
    return table


def probe_points(
    profile: Profile,
    atlases: Mapping[str, Atlas],
    *,
    seed: int = 0,
    area_type_field: str = "zoning",
    land_cover_atlases: Mapping[str, Atlas] | None = None,
) -> pd.DataFrame:
    """The places that embeddings are probed at: official points of the test and validation regions and set-aside cells.

    The columns of the locations table and `target_set` (the name of the test region, ``validation`` or ``set-aside``,
    beside the same in `split`), `id address zoning current_use`. `price` is standardised by the mean and standard
    deviation of its own target set, so that a mean squared error of 1 is what predicting the mean scores;
    `price_pretrain` by those of the pretraining points. ``attrs`` as in `build_places`, with `price_scales` by
    target set. `area_type_field` is what area types are the most frequent values of, ``zoning`` or ``current_use`` (the
    paper does not say). For stand-in data the places are random ones of the test region and the set-aside cells (whose
    mean and standard deviation are then those of `price_pretrain`).
    """
    folds = splits.read_folds(profile)
    zoom = profile.maps.zooms[0]
    if profile.stand_ins:
        table = _stand_in_probes(profile, atlases, folds, seed)
    else:
        table = _official_probes(profile, atlases, folds, area_type_field)
    table = _with_land_cover(table, land_cover_atlases, zoom).rename(columns={"price": "price_pretrain"})
    table["price"] = np.float32(np.nan)
    raw = raw_price(table)
    scales = {}
    for name, rows in table.groupby("target_set").indices.items():
        scale = PriceScale.of(raw[rows])
        table.loc[rows, "price"] = scale(raw[rows])
        scales[str(name)] = {"mean": scale.mean, "sd": scale.sd}
    table.attrs |= {"price_scales": scales, "stand_ins": profile.stand_ins}
    return table


def official_elsewhere(profile: Profile, atlases: Mapping[str, Atlas]) -> pd.DataFrame:
    """The official points of all regions but the test region, whatever their split: columns `lat lon region split cell
    price_yen_m2 density area_type zone id`, as in `probe_points`, with the same codes."""
    points = _points_with_splits(profile, atlases, splits.read_folds(profile))
    tested = [region.name for region in profile.regions_for("test")]
    table = points[~points["region"].isin(tested)].reset_index(drop=True)
    table["density"] = population.density_at(table["lat"], table["lon"], census_areas())
    table["area_type"] = area_type.codes_of(table["zoning"], _area_types(profile))
    table["zone"] = area_type.zone_of(table["zoning"])
    columns = ["lat", "lon", "region", "split", "cell", "price_yen_m2", "density", "area_type", "zone", "id"]
    return table[columns]


def raw_price(table: pd.DataFrame) -> NDArray[np.float64]:
    """What `price` is the standardised log of: yen/m², or for stand-ins 1 + amenity access."""
    if "amenity_access" in table:
        return 1.0 + table["amenity_access"].to_numpy(np.float64)
    return table["price_yen_m2"].to_numpy(np.float64)


def _in_split(profile: Profile, region: Region, split: str, folds: pd.DataFrame) -> Allowed:
    """Which coordinates of a region are in a split; of an extract or a place only in its listed cells, as blocks reach
    beyond."""
    listed = folds.loc[folds["region"] == region.name, "cell"].to_numpy(str)

    def allowed(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        inside = splits.split_of(lat, lon, region.role, profile, folds) == split
        if profile.stand_ins or profile.folds:
            inside &= np.isin(splits.cell_of(lat, lon, profile.maps.cell_degrees), listed)
        return inside

    return allowed


def apportion(n: int, weights: list[int]) -> list[int]:
    """n cut into whole parts in proportion to the weights (largest remainder)."""
    exact = n * np.array(weights, np.float64) / sum(weights)
    parts = np.floor(exact).astype(int)
    for index in np.argsort(parts - exact, kind="stable")[: n - parts.sum()]:
        parts[index] += 1
    return [int(part) for part in parts]


def _with_land_cover(table: pd.DataFrame, atlases: Mapping[str, Atlas] | None, zoom: int) -> pd.DataFrame:
    codes = np.full(len(table), -1, np.int64)
    for name, atlas in (atlases or {}).items():
        rows = np.flatnonzero(table["region"] == name)
        if len(rows):
            codes[rows] = land_cover(atlas, table["lat"].to_numpy()[rows], table["lon"].to_numpy()[rows], zoom=zoom)
    table["land_cover"] = codes
    return table


def _points_with_splits(profile: Profile, atlases: Mapping[str, Atlas], folds: pd.DataFrame) -> pd.DataFrame:
    """Official points on the atlases with `split`, `cell`, `area_type` and `zone`; names in attrs."""
    points = official_points(profile, {name: atlas.keys for name, atlas in atlases.items()})
    split = np.full(len(points), "", dtype="<U10")
    for region in profile.regions:
        rows = np.flatnonzero(points["region"] == region.name)
        split[rows] = splits.split_of(points["lat"].iloc[rows], points["lon"].iloc[rows], region.role, profile, folds)
    points["split"] = split
    points["cell"] = splits.cell_of(points["lat"], points["lon"], profile.maps.cell_degrees)
    return points


def _area_types(profile: Profile, field: str = "zoning") -> tuple[str, ...]:
    """Names of the area types: the most frequent values of a field (zoning, current_use) in the whole country."""
    return area_type.most_frequent(land_prices()[field], profile.probing.area_types)


def _with_official(
    profile: Profile, atlases: Mapping[str, Atlas], table: pd.DataFrame, folds: pd.DataFrame
) -> pd.DataFrame:
    points = _points_with_splits(profile, atlases, folds)
    known = points[points["split"] == "pretrain"]
    scale = PriceScale.of(known["price_yen_m2"])
    price = interpolate_price(table["lat"], table["lon"], known)
    density = population.density_at(table["lat"], table["lon"], census_areas())
    classes, centres = population.density_classes(density, profile.pretraining.density_classes)
    table = table.assign(
        price=scale(price), price_yen_m2=price, density=density, density_class=classes, area_type=-1, zone=-1
    )
    table.attrs = {
        "price_mean": scale.mean,
        "price_sd": scale.sd,
        "price_points": len(known),
        "density_centres": centres.tolist(),
        "area_types": list(_area_types(profile)),
        "zones": list(area_type.ZONE_NAMES),
    }
    return table


def _official_probes(
    profile: Profile, atlases: Mapping[str, Atlas], folds: pd.DataFrame, area_type_field: str
) -> pd.DataFrame:
    points = _points_with_splits(profile, atlases, folds)
    scale = PriceScale.of(points.loc[points["split"] == "pretrain", "price_yen_m2"])
    table = points[points["split"].isin(["test", "validation", "set-aside"])].reset_index(drop=True)
    table["target_set"] = table["split"].where(table["split"] != "test", table["region"])
    table["price"] = scale(table["price_yen_m2"])
    table["entropy"] = np.float32(0)
    for name, rows in table.groupby("region").groups.items():
        lat, lon = table.loc[rows, "lat"], table.loc[rows, "lon"]
        table.loc[rows, "entropy"] = entropy_at(atlases[str(name)], lat, lon, zoom=profile.maps.zooms[0])
    table["density"] = population.density_at(table["lat"], table["lon"], census_areas())
    table["density_class"] = -1  # classes are those of the pretraining sample: population.assign(density, centres)
    names = _area_types(profile, area_type_field)
    table["area_type"] = area_type.codes_of(table[area_type_field], names)
    table["zone"] = area_type.zone_of(table["zoning"])
    table.attrs = {
        "price_mean": scale.mean,
        "price_sd": scale.sd,
        "area_types": list(names),
        "zones": list(area_type.ZONE_NAMES),
    }
    return table


def _stand_in_labels(profile: Profile, table: pd.DataFrame) -> pd.DataFrame:
    """The stand-in labels of places by region, in the rows of `table`."""
    parts = []
    for region in profile.regions:
        rows = table.index[table["region"] == region.name]
        if len(rows):
            extract = stand_ins.read_extract(source_of(region))
            where = table.loc[rows]
            labels = stand_ins.labels_at(extract, where["lat"], where["lon"], zoom=profile.maps.zooms[0])
            parts.append(labels.set_index(rows))
    return table.join(pd.concat(parts).sort_index()).assign(price_yen_m2=np.nan)


def _with_stand_ins(profile: Profile, table: pd.DataFrame) -> pd.DataFrame:
    table = _stand_in_labels(profile, table)
    scale = PriceScale.of(raw_price(table))
    table["price"] = scale(raw_price(table))
    table["density"] = table["floor_area"]
    table["density_class"], centres = population.density_classes(
        table["floor_area"], profile.pretraining.density_classes
    )
    table.attrs = {
        "price_mean": scale.mean,
        "price_sd": scale.sd,
        "price_points": len(table),
        "density_centres": centres.tolist(),
        "area_types": list(stand_ins.AREA_TYPES),
        "zones": list(stand_ins.LAND_USES),
    }
    return table


def _stand_in_probes(profile: Profile, atlases: Mapping[str, Atlas], folds: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Random places of the test region, and of the set-aside cells of the pretraining regions."""
    maps = profile.maps
    parts = []
    for region in profile.regions:
        split = {"test": "test", "validation": "validation", "pretrain": "set-aside"}[region.role]
        n = profile.probing.n_points if split == "test" else profile.probing.n_points // 2
        part = sample_places(
            atlases[region.name], n, seed + 1,
            region=region.name, zoom=maps.zooms[0], entropy_threshold=maps.entropy_threshold,
            allowed=_in_split(profile, region, split, folds),
        )  # fmt: skip
        parts.append(part.assign(split=split, target_set=region.name if split == "test" else split))
    table = pd.concat(parts, ignore_index=True)
    table["cell"] = splits.cell_of(table["lat"], table["lon"], maps.cell_degrees)
    table["id"] = [f"{region}-{row}" for row, region in enumerate(table["region"])]
    table = _stand_in_labels(profile, table)
    pretrain = table["split"] != "test"
    scale = PriceScale.of(raw_price(table[pretrain]))
    table["price"] = scale(raw_price(table))
    table["density"] = table["floor_area"]
    table["density_class"] = -1
    table.attrs = {"area_types": list(stand_ins.AREA_TYPES), "zones": list(stand_ins.LAND_USES)}
    return table
