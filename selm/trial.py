"""Is an embedding worth it for *my* data? One table with a target, predicted from the map and from what is free.

Every way gets the same places, the same folds and the same linear probe: ridge regression, or logistic regression for
classes. Folds are drawn at random, as is usual, and by spatial blocks with a buffer around what is tested: neighbours
look and cost alike, so a score under random folds says how well a map is filled in, and one under blocks what is known
of a place that nobody has been to. The verdict is on one question, which is fixed before anything is computed: does the
embedding add to the colours of the same images and the coordinates, which are free, under blocks?
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from selm.bundled import shelf
from selm.embedding.coordinates import EMPTY, Places, read_places, wrapped
from selm.embedding.embedder import Embedder
from selm.embedding.tables import Rows, fill, on_map
from selm.errors import InputError, OutsideMapWarning, unknown
from selm.maps.mercator import EARTH_RADIUS_M, metres_per_pixel
from selm.maps.sphere import Neighbourhood
from selm.probes import peers, practitioner
from selm.probes.claims import Comparison, paired_bootstrap
from selm.probes.folds import TASKS, BufferedFolds, OutOfFold, random_folds
from selm.probes.frozen import logistic, ridge
from selm.trial_report import SPLITS, WITH, Trial

if TYPE_CHECKING:
    from selm.encoder import MapEncoder
    from selm.maps.atlas import Atlas

LEAST_ROWS, LEAST_BLOCKS = 60, 20
SIDES_KM = (200.0, 100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)  # of blocks; the first that serves
LARGEST_SHARE = 0.2  # of the rows in one block
BUFFER = 0.15  # of a block's side
FOLDS, DRAWS, MANY_ROWS = 5, 3, 2000  # above so many rows, one draw of folds
FEW_VALUES = 10  # a column of so many different numbers is taken for classes
MOST_CLASSES = 50
FIELD = 32  # random waves of each length that a smooth field of the coordinates is made of
PENALTY = 1e-2 / 128  # of the logistic probe, a feature: more features are held as tightly as few
_MARKS = re.compile(r"(?<![\w.,])[$€£¥￥] ?(?=[\d+-])|(?<=\d) ?[%$€£¥￥円]$")  # of money and shares
MEAN, FREE = "mean predictor", "colours, coordinates"


def try_embedding(
    table: str | Path | pd.DataFrame,
    target: str,
    *,
    map: str | Path | Atlas | None = None,
    model: str | Path | MapEncoder | None = None,
    task: str | None = None,
    rows: int = 5000,
    pair: tuple[str, str] | None = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Trial:
    """Try an embedding on a table with coordinates and a column `target`.

    table, pair: as `selm.embedding.coordinates.read_places` reads them.  map, model, options: of `Embedder`; colours
    are always beside the embedding.  task: "regression" or "classification"; by default numbers with more than
    10 different values are predicted as such, all else as classes.  rows: at most so many are tried, drawn at
    random.

    Raises InputError for a column that there is not or that does not fit the task, and where fewer than 60
    rows have a target and lie on the map, or these lie in fewer than 20 blocks of the smallest size.
    """
    embedder = Embedder(model, map, **{**options, "beside": ("colours",)})
    places = read_places(table, pair=pair)
    values, names, task, facts = _target(places, target, task)
    inside = on_map(places, embedder)
    missing = ~np.isfinite(values)
    n = len(values)
    served = np.zeros(n, np.bool_)
    served[places.rows[inside]] = True
    for which, what in ((missing, f"have no {target}"), (~served & ~missing, "are not on the map")):
        if which.any():
            facts.append(f"{which.sum():,} of {n:,} rows {what}: {places.naming(np.flatnonzero(which))}.")
    usable = np.flatnonzero(served & ~missing)
    if len(usable) < LEAST_ROWS:
        raise InputError(
            f"{places.name}: {len(usable)} rows have a {target} and lie on the map; a trial needs {LEAST_ROWS}"
        )
    if len(usable) > rows:
        facts.append(f"Of {len(usable):,} rows {rows:,} are tried, drawn at random.")
        usable = np.sort(np.random.default_rng(seed).choice(usable, rows, replace=False))
    x, came = _embedded(places, inside, usable, embedder, progress)
    if not came.all():
        facts.append(f"Of {len(came):,} rows that are tried the map turned out to have nothing for {(~came).sum():,}.")
        usable, x = usable[came], x[came]
    lat, lon = (at[usable] for at in places.centres())
    side, block = blocks(lat, lon, places.name)
    y: NDArray[Any] = values[usable]
    if task == "classification":
        classes, y = np.unique(y.astype(np.int64), return_inverse=True)
        names = [names[code] for code in classes]
        if not 2 <= len(names) <= MOST_CLASSES:
            found = f"{places.name}: column {target} has {len(names)} classes"
            raise InputError(f"{found}; 2 to {MOST_CLASSES} can be tried")
        rare = int((np.bincount(y) < FOLDS).sum())
        facts.append(f"{len(names)} classes" + (f", {rare} of them with fewer than {FOLDS} rows." if rare else "."))
    mean, spread = (float(y.mean()), float(y.std())) if task == "regression" else (0.0, 1.0)
    if spread == 0:
        raise InputError(f"{places.name}: column {target} has one value, {mean:g}, in all rows that can be tried")
    facts += _skew(y, target) if task == "regression" else []

    split = embedder.parts["e"]
    draws = DRAWS if len(y) <= MANY_ROWS else 1
    near = Neighbourhood(lat, lon, 1000 * BUFFER * side)
    folds: dict[str, Any] = {
        "random": random_folds(len(y), range(draws), FOLDS),
        "blocks": BufferedFolds(random_folds(int(block.max()) + 1, range(draws), FOLDS)[:, block], near),
    }
    facts += [
        f"{len(y):,} rows in {block.max() + 1} blocks of {side:g} km; {FOLDS} folds, drawn {draws} times. Under blocks "
        f"nothing is learned from what lies within {1000 * BUFFER * side:,.0f} m of a tested place.",
        f"The widest image shows {_image_km(embedder, lat):.1f} km: it sees what lies in the blocks around its own.",
        f"Encoder: {_named(model)}, zooms {', '.join(str(zoom) for zoom in embedder.encoder.config.zooms)}; map: "
        f"{embedder.map_name}, {embedder.map_attribution}.",
    ]
    ways = _ways(x[:, :split], x[:, split:], _waves(lat, lon, side, seed), lat, lon)
    standard = (y - mean) / spread if task == "regression" else y
    bar = tqdm(list(itertools.product(ways, folds)), desc="try", unit="way", disable=not progress, leave=False)
    scored = {(way, name): _score(way, ways[way], standard, folds[name], task, lat, lon) for way, name in bar}
    points = {key: _errors(one, standard, task) for key, one in scored.items()}
    scores = pd.DataFrame([{"way": way, **_intervals(points, way, block)} for way in ways])
    comparison = compare(points, WITH, FREE, block, task)
    over_mean = max(compare(points, way, MEAN, block, task).low for way in (WITH, FREE))
    verdict = _verdict(target, task, points, comparison, over_mean)
    every = scored[WITH, "blocks"].predictions[0]
    shown = pd.DataFrame({"row": usable + places.first, "lat": lat, "lon": lon})
    if task == "regression":
        shown["truth"] = y
        shown["predicted"] = np.nanmean(_within(every, standard), axis=0) * spread + mean
        shown["error"] = shown["predicted"] - shown["truth"]
    else:
        shown["truth"] = [names[code] for code in y]
        shown["predicted"] = [names[int(code)] for code in every[0]]
        shown["error"] = (shown["predicted"] != shown["truth"]).astype(float)
    return Trial(places.name, target, task, scores, comparison, verdict, side, tuple(facts), shown)


# The table


def _target(places: Places, target: str, task: str | None) -> tuple[NDArray[np.float64], list[str], str, list[str]]:
    """A column as numbers or codes, NaN where it is empty; the classes' names; the task; what was decided."""
    columns = [str(name) for name in places.table.columns]
    if target not in columns:
        raise unknown(f"column of {places.name}", target, columns)
    if task is not None and task not in TASKS:
        raise unknown("task", task, TASKS)
    column = places.table.iloc[:, columns.index(target)]
    texts = ["" if pd.isna(value) else str(value).strip() for value in column.astype(object)]
    texts = ["" if text.lower() in EMPTY else text for text in texts]
    full = [text for text in texts if text]
    if not full:
        raise InputError(f"{places.name}: column {target} is empty")
    is_class = pd.api.types.is_bool_dtype(column.dtype)
    numbers = np.full(len(texts), np.nan) if is_class else _numbers(texts)
    odd = [row for row, text in enumerate(texts) if text and not np.isfinite(numbers[row])]
    few = len(np.unique(numbers[np.isfinite(numbers)])) <= FEW_VALUES
    decided = task or ("classification" if odd or few else "regression")
    said = "as you said" if task else f"more than {FEW_VALUES} different numbers"
    if odd and not is_class and (decided == "regression" or 2 * len(odd) < len(full)):
        most = ", as most others are" if 2 * len(odd) < len(full) else ""
        raise InputError(
            f"{places.name}: row {odd[0] + places.first}, column {target}: '{texts[odd[0]][:40]}' is not a number{most}"
            "; leave it empty, or say that these are classes (task classification)"
        )
    if decided == "regression":
        return numbers, [], decided, [f"{target} is predicted as a number ({said})."]
    names = sorted(set(full))
    codes = {name: float(code) for code, name in enumerate(names)}
    said = said if task else "text" if odd else f"at most {FEW_VALUES} different numbers"
    values = np.array([codes.get(text, np.nan) for text in texts])
    return values, names, decided, [f"{target} is predicted as a class ({said})."]


def _numbers(texts: list[str]) -> NDArray[np.float64]:
    """Texts as numbers, NaN where they are none: points or commas in thousands or decimals, a currency's sign, %."""
    texts = [_MARKS.sub("", text) for text in texts]
    full = [text for text in texts if text]
    if all(re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}(\.\d+)?", text) for text in full):
        texts = [text.replace(",", "") for text in texts]
    elif all(re.fullmatch(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?", text) for text in full) and "," in "".join(full):
        texts = [text.replace(".", "").replace(",", ".") for text in texts]
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _skew(y: NDArray[np.float64], target: str) -> list[str]:
    low, high = np.quantile(y, [0.05, 0.95])
    if low > 0 and high > 20 * low:
        return [f"{target} spans a factor of {high / low:,.0f}: its logarithm may be the better target."]
    return []


def blocks(lat: NDArray[np.float64], lon: NDArray[np.float64], name: str) -> tuple[float, NDArray[np.int64]]:
    """The side of square blocks in km, and the block of each place, int64 (N,): the largest side of `SIDES_KM` that
    gives `LEAST_BLOCKS` blocks with places, none of which holds more than `LARGEST_SHARE` of them.

    Raises InputError where none does.
    """
    degree = np.pi * EARTH_RADIUS_M / 180_000  # km
    east = wrapped(lon - lon[0])  # across the 180th meridian, too
    for side in SIDES_KM:
        row = np.floor(lat * degree / side)
        middle = np.cos(np.radians(np.clip((row + 0.5) * side / degree, -89, 89)))
        cells = np.stack([row, np.floor(east * degree * middle / side)], axis=1)
        _, block, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        if len(count) >= LEAST_BLOCKS and count.max() <= LARGEST_SHARE * len(lat):
            return side, block.ravel()
    raise InputError(
        f"{name}: the rows lie in {len(count)} spots of {1000 * SIDES_KM[-1]:.0f} m; a trial needs {LEAST_BLOCKS}, "
        f"none with more than {LARGEST_SHARE:.0%} of the rows"
    )


def _embedded(
    places: Places, inside: NDArray[np.bool_], rows: NDArray[np.int64], embedder: Embedder, progress: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The embeddings of some rows, float32 (n, dim), and which rows have one, bool (n,)."""
    number = np.full(len(places.table), -1)
    number[rows] = np.arange(len(rows))
    kept = inside & (number[places.rows] >= 0)
    some = dataclasses.replace(
        places, table=places.table.iloc[rows], lat=places.lat[kept], lon=places.lon[kept],
        rows=number[places.rows[kept]],
    )  # fmt: skip
    out = Rows(len(rows), embedder.dim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideMapWarning)  # it would count the rows among those tried
        came = fill(out, some, np.ones(len(some.rows), bool), embedder, progress=progress)
    return out.values, came


def _named(model: str | Path | MapEncoder | None) -> str:
    return shelf().default if model is None else str(model) if isinstance(model, (str, Path)) else type(model).__name__


def _image_km(embedder: Embedder, lat: NDArray[np.float64]) -> float:
    config = embedder.encoder.config
    return float(config.image_px * metres_per_pixel(np.median(lat), min(config.zooms), config.tile_px)) / 1000


# Ways of predicting


def _waves(lat: NDArray[np.float64], lon: NDArray[np.float64], side: float, seed: int) -> NDArray[np.float64]:
    """A smooth field of the coordinates as features of a linear probe: random waves (Rahimi and Recht 2007) of Gaussian
    kernels four blocks, one block and a quarter of one wide. (N, 6 · `FIELD`)."""
    degree = np.pi * EARTH_RADIUS_M / 180_000
    km = np.stack([wrapped(lon - lon[0]) * np.cos(np.radians(lat.mean())), lat - lat.mean()], axis=1) * degree
    random = np.random.default_rng(seed)
    phases = [km @ random.normal(size=(2, FIELD)) / (side * width) for width in (4, 1, 0.25)]
    return np.hstack([wave(phase) for phase in phases for wave in (np.cos, np.sin)])


def _ways(
    embedding: NDArray[np.float32], colours: NDArray[np.float32], field: NDArray[np.float64],
    lat: NDArray[np.float64], lon: NDArray[np.float64],
) -> dict[str, NDArray[Any] | None]:  # fmt: skip
    """The features of each way; None for those that have a probe of their own."""
    out: dict[str, NDArray[Any] | None] = {
        MEAN: None, "5 nearest by coordinates": None, "coordinates": field, "colours": colours,
        FREE: np.hstack([colours, field]), "embedding": embedding,
        "embedding, colours": np.hstack([embedding, colours]), WITH: np.hstack([embedding, colours, field]),
    }  # fmt: skip
    if peers.geoclip_version():
        out[f"GeoCLIP {peers.geoclip_version()}"] = peers.geoclip_features(lat, lon)
    return out


def _score(
    way: str, features: NDArray[Any] | None, y: NDArray[Any], folds: NDArray[np.int64] | BufferedFolds, task: str,
    lat: NDArray[np.float64], lon: NDArray[np.float64],
) -> OutOfFold:  # fmt: skip
    if features is not None:
        penalty = PENALTY * features.shape[1]
        return ridge(features, y, folds) if task == "regression" else logistic(features, y, folds, penalty=penalty)
    if way != MEAN:
        return practitioner.knn(lat, lon, y, folds, task=task)
    return practitioner.target_mean(y, folds) if task == "regression" else practitioner.class_prior(y, folds)


def _within(predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Predictions held within the column's range: far from all it has seen, a linear model may say anything."""
    return np.clip(predictions, y.min(), y.max())


def _errors(found: OutOfFold, y: NDArray[Any], task: str) -> NDArray[np.float64]:
    """Each place's squared error, or share of right answers, over the draws that tested it: float64 (N,)."""
    if task == "classification":
        return np.asarray(np.nanmean(found.scores["top1"][0].astype(np.float64), axis=0))
    return np.asarray(np.nanmean(np.square(_within(found.predictions[0].astype(np.float64), y) - y), axis=0))


def _intervals(points: dict[tuple[str, str], NDArray[Any]], way: str, block: NDArray[np.int64]) -> dict[str, float]:
    out: dict[str, float] = {}
    for split in SPLITS:
        mine = points[way, split]
        found = paired_bootstrap(mine, np.zeros(len(mine)), block, higher_is_better=True)
        out |= {split: found.gain, f"{split}_low": found.low, f"{split}_high": found.high}
    return out


def compare(
    points: dict[tuple[str, str], NDArray[Any]], a: str, b: str, block: NDArray[np.int64], task: str
) -> Comparison:
    """How much better a is than b under blocks."""
    better = task == "classification"
    return paired_bootstrap(points[a, "blocks"], points[b, "blocks"], block, higher_is_better=better)


def _verdict(
    target: str, task: str, points: dict[tuple[str, str], NDArray[Any]], gain: Comparison, over_mean: float
) -> str:
    """One sentence. `gain` is what the embedding adds to what is free; `over_mean` what that, or all together, is at
    least better than the mean."""
    regression = task == "regression"
    mean = {key: float(np.nanmean(values)) for key, values in points.items()}
    numbers = (
        f"{'variance that is left' if regression else 'share that is right'}: {mean[WITH, 'blocks']:.3f} with it, "
        f"{mean[FREE, 'blocks']:.3f} without; 95 % interval of the gain {gain.low:+.3f} to {gain.high:+.3f}"
    )
    if over_mean <= 0:
        tempting = (mean[MEAN, "random"] - mean[WITH, "random"]) * (1 if regression else -1) > 0
        return (
            "No: in blocks that nothing was learned from, neither colours and coordinates nor these with the embedding "
            f"are shown to predict {target} better than its {'mean' if regression else 'most frequent class'}"
            f"{', whatever random folds say' if tempting else ''} ({numbers})."
        )
    if gain.low > 0:
        return f"Yes: the embedding adds to what colours and coordinates say of {target} ({numbers})."
    if gain.high < 0:
        return f"No: colours and coordinates, which are free, predict {target} better alone ({numbers})."
    return f"Not shown: that the embedding adds to colours and coordinates, which are free, for {target} ({numbers})."
