"""The locations table: coordinates sampled on the map, or of official points, with their splits and labels.

Columns: `lat lon` float64 degrees; `region`; `split` (pretrain, set-aside, validation or test); `cell` of the
geographic split; `entropy` float32 bits of the image; `price` float32 standardised natural log of yen/m² (NaN: none
known); `price_yen_m2`; `density` people/km² (NaN: none known), `density_class` int64 (-1); `area_type` int64 (-1), a
code into ``attrs["area_types"]``; `zone` int64 merged use district (-1); `land_cover` int64 (-1). With stand-ins
`price` is that of `amenity_access`, `density` is `floor_area`, and both are columns of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from selm import splits
from selm.errors import InputError
from selm.labels import area_type, neighbours, population, stand_ins
from selm.labels.land_cover import land_cover
from selm.labels.land_price import RADIUS_M, PriceScale, interpolate, inverse_distance_mean, read_l01
from selm.maps import entropy, mercator
from selm.maps.atlas import BLOCK_ZOOM, Atlas
from selm.regions import LAND_PRICES, POPULATION, data_file, official_points, source_of
from selm.settings import Profile, Region

Allowed = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
_CHUNK = 2048  # images whose entropy is computed together
_MAX_LOOKED, _MAX_DRAWN = 50, 500  # images and coordinates, for each location, after which a search is given up


# Sampling


def sample_locations(
    atlas: Atlas,
    n: int,
    seed: int,
    *,
    region: str,
    zoom: int = 17,
    size: int | None = None,
    entropy_threshold: float = entropy.THRESHOLD,
    allowed: Allowed | None = None,
) -> pd.DataFrame:
    """`n` coordinates, uniform over the atlas's blocks, whose image passes the entropy filter (section 4).

    Columns `lat lon region entropy`. The image is `size` pixels at `zoom`, by default one tile. `allowed(lat, lon)`
    drops coordinates before they are looked at. ``attrs["keep_rate"]`` is the share of images that passed and
    ``attrs["candidates"]`` their number. Raises InputError if the map shows too little to find `n`.
    """
    rng = np.random.default_rng([seed, *region.encode()])
    kept: list[pd.DataFrame] = []
    found = looked = drawn = 0
    want = int(np.ceil(1.3 * n)) + 16
    while found < n:
        if looked > _MAX_LOOKED * n + 1000 or drawn > _MAX_DRAWN * n + 10_000:
            where = f"{atlas.path}: only {found} of {n} locations found"
            raise InputError(f"{where}; {region} shows too little at {entropy_threshold} bits")
        lat, lon = _uniform(atlas, want, rng)
        drawn += want
        if allowed is not None:
            inside = allowed(lat, lon)
            lat, lon = lat[inside], lon[inside]
        bits = image_entropy(atlas, lat, lon, zoom=zoom, size=size)
        passed = entropy.keep(bits, entropy_threshold)
        kept.append(pd.DataFrame({"lat": lat[passed], "lon": lon[passed], "region": region, "entropy": bits[passed]}))
        found, looked = found + int(passed.sum()), looked + len(lat)
        want = int(np.ceil(min(1.2 * (n - found) * drawn / max(found, 1), 4 * drawn))) + 16  # at the rate so far
    table = pd.concat(kept, ignore_index=True).iloc[:n].reset_index(drop=True)
    table.attrs = {"keep_rate": found / looked, "candidates": looked}
    return table


def _uniform(atlas: Atlas, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """n coordinates, uniform over the atlas's blocks on the Web Mercator plane."""
    if not len(atlas.keys):
        raise InputError(f"{atlas.path}: the atlas has no blocks")
    corner = atlas.keys[rng.integers(len(atlas.keys), size=n)]
    offset = rng.random((n, 2))
    return mercator.from_tile(corner[:, 0] + offset[:, 0], corner[:, 1] + offset[:, 1], BLOCK_ZOOM)


def image_entropy(
    atlas: Atlas, lat: ArrayLike, lon: ArrayLike, *, zoom: int = 17, size: int | None = None
) -> NDArray[np.float32]:
    """Entropy in bits, float32 (N,), of the images centred on N coordinates; `size` pixels, by default one tile."""
    lat, lon = np.atleast_1d(np.asarray(lat, np.float64)), np.atleast_1d(np.asarray(lon, np.float64))
    x, y = mercator.to_tile(lat, lon, BLOCK_ZOOM)
    order = np.lexsort((np.floor(y), np.floor(x)))  # block by block, so that each is read about once
    out = np.empty(len(lat), np.float32)
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        images = atlas.indices(lat[rows], lon[rows], zoom, size or atlas.tile_px)
        out[rows] = entropy.image_entropy(images, atlas.palette)
    return out


# The tables


def build_locations(
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
    shares = _apportion(n or profile.pretraining.n_locations, [len(atlases[region.name].keys) for region in regions])
    zoom = profile.maps.zooms[0]
    parts = []
    for region, share in zip(regions, shares, strict=True):
        part = sample_locations(
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
    `price_pretrain` by those of the pretraining points. ``attrs`` as in `build_locations`, with `price_scales` by
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
    raw = _raw_price(table)
    scales = {}
    for name, rows in table.groupby("target_set").indices.items():
        scale = PriceScale.of(raw[rows])
        table.loc[rows, "price"] = scale(raw[rows])
        scales[str(name)] = {"mean": scale.mean, "sd": scale.sd}
    table.attrs |= {"price_scales": scales, "stand_ins": profile.stand_ins}
    return table


def _raw_price(table: pd.DataFrame) -> NDArray[np.float64]:
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


def _apportion(n: int, weights: list[int]) -> list[int]:
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


# Official labels


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
    return area_type.most_frequent(read_l01(data_file(LAND_PRICES))[field], profile.probing.area_types)


def _with_official(
    profile: Profile, atlases: Mapping[str, Atlas], table: pd.DataFrame, folds: pd.DataFrame
) -> pd.DataFrame:
    points = _points_with_splits(profile, atlases, folds)
    known = points[points["split"] == "pretrain"]
    scale = PriceScale.of(known["price_yen_m2"])
    price = interpolate(table["lat"], table["lon"], known)
    density = population.density_at(table["lat"], table["lon"], population.read_areas(data_file(POPULATION)))
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
        table.loc[rows, "entropy"] = image_entropy(atlases[str(name)], lat, lon, zoom=profile.maps.zooms[0])
    areas = population.read_areas(data_file(POPULATION))
    table["density"] = population.density_at(table["lat"], table["lon"], areas)
    table["density_class"] = -1  # classes are those of the pretraining sample: population.assign(density, centres)
    names = _area_types(profile, area_type_field)
    table["area_type"] = area_type.encode(table[area_type_field], names)
    table["zone"] = area_type.zone_of(table["zoning"])
    table.attrs = {
        "price_mean": scale.mean,
        "price_sd": scale.sd,
        "area_types": list(names),
        "zones": list(area_type.ZONE_NAMES),
    }
    return table


# Interpolated prices


def interpolated_points(
    profile: Profile, atlases: Mapping[str, Atlas], points: pd.DataFrame, n: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """`n` (default: the profile's) coordinates of the test region that a price can be interpolated at.

    The paper tests on 50,000 Hokkaido locations, far more than there are official points, so it must have interpolated.
    `points` are the test rows of `probe_points`. The coordinates are sampled uniformly on the map among those within
    2 km of a point; their images pass the entropy filter. Columns `lat lon region split cell entropy`; `nearest`, the
    row number in `points` of the nearest one, whose side of a split the coordinate takes; and `price_leaking`, from
    all points before any split, for the one comparison that shows what leaking does. Prices that do not leak:
    `prices_by_fold`.
    """
    (region,) = profile.regions_for("test")
    point_lat, point_lon = points["lat"].to_numpy(), points["lon"].to_numpy()

    def allowed(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        return neighbours.within(lat, lon, point_lat, point_lon, RADIUS_M)

    maps = profile.maps
    table = sample_locations(
        atlases[region.name], n or profile.probing.n_interpolated, seed + 2,
        region=region.name, zoom=maps.zooms[0], entropy_threshold=maps.entropy_threshold, allowed=allowed,
    )  # fmt: skip
    table["split"] = "test"
    table["cell"] = splits.cell_of(table["lat"], table["lon"], maps.cell_degrees)
    _, index = neighbours.nearest(table["lat"], table["lon"], point_lat, point_lon)
    table["nearest"] = index[:, 0]
    leaking = inverse_distance_mean(table["lat"], table["lon"], point_lat, point_lon, points["price"])
    table["price_leaking"] = leaking.astype(np.float32)
    return table


def prices_by_fold(coordinates: pd.DataFrame, points: pd.DataFrame, fold: ArrayLike) -> NDArray[np.float32]:
    """Standardised prices, float32 (N,), of `interpolated_points`, each from the points of its own fold only.

    One array serves every split of a draw into training and test folds without leaking: no official point reaches both
    sides. `fold` int (M,) of each of `points`; a coordinate takes the fold of its nearest point. NaN where that is
    negative.
    """
    fold = np.asarray(fold)
    own = fold[coordinates["nearest"].to_numpy()]
    prices = np.full(len(coordinates), np.nan, np.float32)
    for number in np.unique(own[own >= 0]):
        rows, known = np.flatnonzero(own == number), np.flatnonzero(fold == number)
        at, of = coordinates.iloc[rows], points.iloc[known]
        prices[rows] = inverse_distance_mean(at["lat"], at["lon"], of["lat"], of["lon"], of["price"])
    return prices


# Users' coordinates

_LAT, _LON = ("lat", "latitude"), ("lon", "lng", "long", "longitude")


def read_coordinates(path: str | Path) -> pd.DataFrame:
    """A user's table of coordinates: CSV (comma, semicolon or tab; UTF-8) or parquet, with its other columns kept.

    The coordinate columns may be called lat or latitude and lon, lng, long or longitude in any case, and become `lat`
    and `lon`, float64 degrees WGS84, in front. Raises InputError naming the file and the column or row (data rows count
    from 1) for a missing or repeated column, text, missing numbers, or coordinates that are swapped or out of range.
    """
    path = Path(path)
    table = _read_table(path)
    lat_name, lon_name = _column(path, table, _LAT), _column(path, table, _LON)
    if not len(table):
        raise InputError(f"{path}: no rows")
    lat, lon = _numbers(path, table[lat_name]), _numbers(path, table[lon_name])
    bad = (np.abs(lat) > 90) | (np.abs(lon) > 180)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        a, o = lat[row], lon[row]
        if abs(a) <= 180 and abs(o) <= 90:
            raise InputError(f"{path}: row {row + 1}: {lat_name} {a:g}, {lon_name} {o:g} look swapped")
        name, value, limit = (lat_name, a, 90) if abs(a) > 90 else (lon_name, o, 180)
        raise InputError(f"{path}: row {row + 1}, column {name}: {value:g} is outside -{limit}..{limit}")
    others = table.drop(columns=[lat_name, lon_name])
    taken = [name for name in others.columns if name in ("lat", "lon")]
    if taken:
        raise InputError(f"{path}: column {taken[0]} repeats a coordinate column")
    return pd.concat([pd.DataFrame({"lat": lat, "lon": lon}), others.reset_index(drop=True)], axis=1)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a table")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        names = [name.strip().strip('"').lower() for name in header.split(separator)]
        for name in _LAT + _LON:
            if names.count(name) > 1:
                raise InputError(f"{path}: column {name} appears {names.count(name)} times")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            return pd.read_csv(
                path, sep=separator, encoding="utf-8-sig", dtype=str, keep_default_na=False, index_col=False
            )
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: rows have more fields than the header names") from None
    except InputError:
        raise
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save the table as CSV UTF-8") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty") from None
    except (pd.errors.ParserError, OSError, ValueError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise InputError(f"{path}: not a readable table ({str(error).strip().splitlines()[0]})") from None


def _column(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> str:
    found = [name for name in table.columns if str(name).strip().lower() in names]
    if not found:
        there = ", ".join(map(str, table.columns[:6])) + (" …" if len(table.columns) > 6 else "")
        raise InputError(f"{path}: no column {' or '.join(names)} (has: {there or 'none'})")
    if len(found) > 1:
        raise InputError(f"{path}: columns {' and '.join(map(str, found))} could both be {names[0]}")
    return found[0]


def _numbers(path: Path, column: pd.Series[Any]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = column.iloc[row]
        empty = bool(pd.isna(value)) or str(value).strip().lower() in ("", "nan", "na", "null", "none")
        what = "no value" if empty else f"'{str(value)[:40]}' is not a coordinate"
        raise InputError(f"{path}: row {row + 1}, column {column.name}: {what}")
    return numbers


# Stand-ins


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
    scale = PriceScale.of(_raw_price(table))
    table["price"] = scale(_raw_price(table))
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
        part = sample_locations(
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
    scale = PriceScale.of(_raw_price(table[pretrain]))
    table["price"] = scale(_raw_price(table))
    table["density"] = table["floor_area"]
    table["density_class"] = -1
    table.attrs = {"area_types": list(stand_ins.AREA_TYPES), "zones": list(stand_ins.LAND_USES)}
    return table
