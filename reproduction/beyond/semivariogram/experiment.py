"""Hard and false negatives from a semivariogram: the fitted curve, and the contrast with and without its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from reproduction.beyond.geolocation import experiment as geolocation
from reproduction.beyond.location_encoders import experiment as location_encoders
from reproduction.beyond.location_encoders.experiment import Run
from reproduction.beyond.semivariogram.variogram import MODELS, Empirical, Fit, empirical, fit, kinds
from reproduction.computed import encoders, store
from reproduction.settings import Profile
from selm import distributed, files
from selm.errors import InputError
from selm.provenance import provenance

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
    base = store.address("semivariogram", profile.name, parts)
    return base.with_name(f"{base.name}-bins.csv"), base.with_name(f"{base.name}-fits.csv")


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
                fitted = fit(found, model)
            except InputError as error:
                if "does not fit" not in str(error):
                    raise
                continue
            shares = kinds(fitted, at[rng], torch.as_tensor(features[rng]))
            rows.append({**dataclasses.asdict(fitted), "sill": fitted.sill, **shares})
        common: dict[str, Any] = {
            "profile": profile.name, "stand_in": profile.stand_ins, "run_id": fits_file.stem.rsplit("-", 2)[1],
            "data": fits_file.stem.rsplit("-", 2)[1], **provenance(distributed.device()),
        }  # fmt: skip
        table = pd.DataFrame({"distance_km": found.distance_km, "gamma": found.gamma, "pairs": found.pairs})
        files.write_text(bins_file, table.assign(**common).to_csv(index=False, lineterminator="\n"))
        files.write_text(fits_file, pd.DataFrame(rows).assign(**common).to_csv(index=False, lineterminator="\n"))
    words = {"run_id": str, "commit": str, "data": str}
    return pd.read_csv(bins_file, dtype=words), pd.read_csv(fits_file, dtype=words)


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
    """("plain" or "weighted", run): the sinusoidal encoder by contrast, with and without weights, for each seed."""
    s, fitted = profile.location_encoders, chosen(profile)
    out = []
    for seed in range(s.seeds):
        plain = Run("sinusoidal", "relu", "contrast", "everywhere", seed)
        out += [("plain", plain), ("weighted", dataclasses.replace(plain, variogram=fitted, strength=s.strength))]
    return out


def _file(profile: Profile, run: Run) -> Path:
    s = dataclasses.asdict(profile.location_encoders)
    parts = {
        "run": location_encoders.trained_name(profile, run), "n": s["n_queries"], "at": s["accuracy_km"],
        "version": [VERSION, geolocation.VERSION],
    }  # fmt: skip
    return store.address("semivariogram", f"{profile.name}-{run.label}", parts).with_suffix(".csv")


def accuracies(profile: Profile, *, progress: bool = True) -> pd.DataFrame:
    """Accuracy within distances of images matched to coordinates, with and without weights, one row a seed."""
    parts = []
    for negatives, run in runs(profile):
        file = _file(profile, run)
        if not file.exists():
            rows = geolocation.accuracy(profile, run, progress=progress)
            common: dict[str, Any] = {
                "negatives": negatives, "seed": run.seed, "n": profile.location_encoders.n_queries,
                "profile": profile.name, "stand_in": profile.stand_ins,
                "run_id": location_encoders.trained_name(profile, run).rsplit("-", 1)[1],
                "data": store.table_fingerprint(location_encoders.places(profile, "queries"))[:12],
                **provenance(distributed.device()),
            }  # fmt: skip
            table = pd.DataFrame([{**row, **common} for row in rows])
            files.write_text(file, table.to_csv(index=False, lineterminator="\n"))
        parts.append(pd.read_csv(file, dtype={"run_id": str, "commit": str, "data": str}))
    return pd.concat(parts, ignore_index=True)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish; computes no result."""
    if not location_encoders._started(profile) or not all(file.exists() for file in _curve_files(profile)):
        return {}
    bins, fits = variogram(profile)
    out: dict[str, pd.DataFrame] = {"semivariogram-bins.csv": bins, "semivariogram-fits.csv": fits}
    done = [file for _, run in runs(profile) if (file := _file(profile, run)).exists()]
    if done:
        rows = [pd.read_csv(file, dtype={"run_id": str}) for file in done]
        out["semivariogram-accuracy.csv"] = pd.concat(rows, ignore_index=True)
    return out
