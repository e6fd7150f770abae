"""Hard and false negatives: a semivariogram's fitted curve, and the contrast with and without its weights, and with
negatives that are chosen instead."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from reproduction.beyond.geolocation import experiment as geolocation
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.location_encoders.experiment import Run
from reproduction.beyond.location_encoders.negatives import KINDS
from reproduction.beyond.semivariogram.variogram import MODELS, Empirical, Fit, empirical, fit_variogram, kinds
from reproduction.computed import encoders, store
from reproduction.results import computed_once, origin, read_csv, write_csv
from reproduction.settings import Profile
from selm.errors import InputError

VERSION = 1  # raise it when the numbers change
_NAMES = ("variogram_places", "variogram_reach", "variogram_bins")


def _sample(profile: Profile) -> tuple[torch.Tensor, np.ndarray]:
    """Coordinates (N, 2) and image features of a sample of the places whose maps are known."""
    pairs = location_encoders.paired(profile, "everywhere")
    n = min(profile.location_encoders.variogram_places, len(pairs.coordinates))
    rows = np.sort(np.random.default_rng(0).choice(len(pairs.coordinates), n, replace=False))
    return pairs.coordinates[rows], pairs.features[rows].numpy()


def measured(profile: Profile) -> Empirical:
    """The empirical semivariogram of the teacher's embeddings; bins widen geometrically from the smallest distance."""
    s = profile.location_encoders
    at, features = _sample(profile)
    reach = 2 * location_encoders.frame(profile).half_m / 1000 * s.variogram_reach
    edges = np.concatenate([[0.0], np.geomspace(reach / 400, reach, s.variogram_bins)])
    return empirical(at[:, 0].numpy(), at[:, 1].numpy(), features, edges)


def _curve_files(profile: Profile) -> tuple[Path, Path]:
    s = dataclasses.asdict(profile.location_encoders)
    pairs = location_encoders.paired(profile, "everywhere")
    parts = {
        "settings": {name: s[name] for name in _NAMES}, "version": VERSION,
        "teacher": encoders.pretraining_folder(profile, s["teacher"]).name,
        "places": store.table_fingerprint(pd.DataFrame(pairs.coordinates.numpy())),
    }  # fmt: skip
    bins, fits = (store.address("semivariogram", profile.name, parts, f"-{name}.csv") for name in ("bins", "fits"))
    return bins, fits


def variogram(profile: Profile) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(bins, fits), computed once: distance_km, gamma and pairs of each bin; and a row a model, with shares of the
    pairs of a batch that it calls hard and false negatives. A model that does not fit has no row."""
    bins_file, fits_file = _curve_files(profile)
    if not (bins_file.exists() and fits_file.exists()):
        found = measured(profile)
        at, features = _sample(profile)
        batch = slice(0, profile.location_encoders.batch)
        rng = np.random.default_rng(1).permutation(len(at))[batch]
        rows = []
        for model in MODELS:
            try:
                fitted = fit_variogram(found, model)
            except InputError as error:
                if "does not fit" not in str(error):
                    raise
                continue
            shares = kinds(fitted, at[rng], torch.as_tensor(features[rng]))
            rows.append({**dataclasses.asdict(fitted), "sill": fitted.sill, **shares})
        made_of = fits_file.stem.rsplit("-", 2)[1]
        common = origin(profile, made_of, run_id=made_of)
        table = pd.DataFrame({"distance_km": found.distance_km, "gamma": found.gamma, "pairs": found.pairs})
        write_csv(bins_file, table.assign(**common))
        write_csv(fits_file, pd.DataFrame(rows).assign(**common))
    return read_csv(bins_file), read_csv(fits_file)


def chosen(profile: Profile) -> Fit:
    """The fit that weighs the pairs: the profile's model, or the best one where that does not fit."""
    _, fits = variogram(profile)
    if not len(fits):
        raise InputError(f"profile '{profile.name}': no semivariogram model fits its embeddings")
    wanted = fits[fits["model"] == profile.location_encoders.variogram_model]
    row = wanted.iloc[0] if len(wanted) else fits.iloc[int(fits["r2"].to_numpy().argmax())]
    numbers = (float(row[name]) for name in ("nugget", "partial_sill", "range_km", "r2"))
    return Fit(str(row["model"]), *numbers)


def runs(profile: Profile) -> list[tuple[str, Run]]:
    """(negatives, run): the sinusoidal encoder by contrast, for each seed: "plain", "weighted" by the semivariogram, or
    chosen in one of the `negatives.KINDS`."""
    s, fitted = profile.location_encoders, chosen(profile)
    out = []
    for seed in range(s.seeds):
        plain = Run("sinusoidal", "relu", "contrast", "everywhere", seed)
        out += [("plain", plain), ("weighted", dataclasses.replace(plain, variogram=fitted, strength=s.strength))]
        out += [(kind, dataclasses.replace(plain, negatives=kind)) for kind in KINDS]
    return out


def _file(profile: Profile, run: Run) -> Path:
    s = dataclasses.asdict(profile.location_encoders)
    parts = {
        "run": location_encoders.trained_name(profile, run), "n": s["n_queries"], "at": s["accuracy_km"],
        "version": [VERSION, geolocation.VERSION],
    }  # fmt: skip
    return store.address("semivariogram", f"{profile.name}-{run.label}", parts, ".csv")


def accuracies(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """Accuracy within distances of images matched to coordinates, by how negatives are weighed or chosen and seed."""

    def made(negatives: str, run: Run) -> pd.DataFrame:
        rows = geolocation.accuracy(profile, run, progress=progress)
        data = store.table_fingerprint(location_encoders.places(profile, "queries"))
        run_id = store.id_of(location_encoders.trained_folder(profile, run))
        return pd.DataFrame(rows).assign(
            negatives=negatives, seed=run.seed, n=profile.location_encoders.n_queries,
            **origin(profile, data, run_id=run_id),
        )  # fmt: skip

    parts = [computed_once(_file(profile, run), partial(made, negatives, run)) for negatives, run in runs(profile)]
    return pd.concat(parts, ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    if not location_encoders.is_started(profile) or not all(file.exists() for file in _curve_files(profile)):
        return {}
    bins, fits = variogram(profile)
    out: dict[str, pd.DataFrame] = {"semivariogram-bins.csv": bins, "semivariogram-fits.csv": fits}
    done = [file for _, run in runs(profile) if (file := _file(profile, run)).exists()]
    if done:
        rows = [read_csv(file) for file in done]
        out["semivariogram-accuracy.csv"] = pd.concat(rows, ignore_index=True)
    return out
