"""What each choice of pretraining is worth: short runs, judged on the validation regions alone.

Every try is one field of the profile changed. DINO and GPS-SELM get the same number of tries: those that both have, and
as many of their own; each as it is is trained by several seeds, which shows how far runs differ by chance. A try is
scored by ridge on the frozen features of the official points of the validation regions, under spatial blocks: the test
region is never looked at. What gains most there is then trained as long as the table's rows and scored in the test
region, once (`tuned`). `gradient_norms` says how loud each loss is at the features that all of them share.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from reproduction import titles
from reproduction.computed import encoders, frozen_features, place_tables, store
from reproduction.places import splits
from reproduction.results import computed_once, origin, read_csv
from reproduction.settings import AS_IT_IS, Change, Profile
from selm import distributed, methods
from selm.encoder import new_encoder
from selm.errors import InputError, unknown
from selm.maps.sphere import pairs_within
from selm.methods.base import Method
from selm.pretrain import Trainer, step_generator
from selm.probes.folds import BufferedFolds, OutOfFold
from selm.probes.frozen import ridge
from selm.views import Batch

VERSION = 1  # raise it when the numbers change
SWEPT = ("dino", "gps_selm")
LOSSES = ("cl", "price", "density", "coordinates", "rec", "clust")


COMMON = (
    Change("footprint of a zoom-16 tile", maps=(("zooms", (16, 15)),)),
    Change("no local crops", views=(("n_local", 0),)),
    Change("K = 1024", (("out_dim", 1024),)),
    Change("no centring", (("centre_momentum", None),)),
    Change("teacher with moving BatchNorm statistics", (("teacher_batch_statistics", False),)),
    Change("places drawn uniformly", (("alpha_priority", 0.0),)),
    Change("learning rate × 2", lr=2.0),
    Change("learning rate × ½", lr=0.5),
    Change("momentum from 0.996", (("teacher_momentum", (0.996, 1.0)),)),
)
OWN: dict[str, tuple[Change, ...]] = {
    "gps_selm": (
        Change("α = 1 (geo)", (("alpha", 1.0),)),
        Change("γ = 1 (clustering)", (("gamma", 1.0),)),
        Change("β = 1 (reconstruction)", (("beta", 1.0),)),
        Change("α = 0.1 (geo)", (("alpha", 0.1),)),
        Change("γ = 0.1 (clustering)", (("gamma", 0.1),)),
        Change("β = 0.1 (reconstruction)", (("beta", 0.1),)),
        Change("64 prototypes", (("prototypes", 64),)),
        Change("p_div centres the teacher only", (("cluster_centre_student", False),)),
    ),
    "dino": (
        Change("teacher temperature 0.04 throughout", (("teacher_temp", (0.04, 0.04)),)),
        Change("teacher temperature 0.07 throughout", (("teacher_temp", (0.07, 0.07)),)),
        Change("student temperature 0.2", (("student_temp", 0.2),)),
        Change("weight decay 0.04 throughout", (("weight_decay", (0.04, 0.04)),)),
        Change("K = 64", (("out_dim", 64),)),
        Change("bottleneck of 64", (("head_bottleneck", 64),)),
        Change("global crops from 20 % of the image", views=(("global_area", (0.2, 1.0)),)),
        Change("no zooming of views", views=(("zoom", (1.0, 1.0)),)),
    ),
}


def tries(method: str) -> tuple[Change, ...]:
    """The tries of a method that is swept: as it is, then one of its own and one of both methods' in turn, those that
    promise most first. Raises InputError for another method."""
    if method not in SWEPT:
        raise unknown("swept method", method, SWEPT)
    turns = itertools.zip_longest(OWN[method], COMMON)
    return (AS_IT_IS, *(variant for turn in turns for variant in turn if variant is not None))


def tried(profile: Profile, method: str, change: Change, share: float) -> Profile:
    """The profile in which a method is pretrained with a change on top of its recipe, on a share of the images."""
    s = profile.pretraining
    short = dataclasses.replace(profile, pretraining=dataclasses.replace(s, images=round(share * s.images)))
    return short.with_recipe(method, change.after(profile.recipe_of(method)))


def scored(
    profile: Profile, variant: Profile, method: str, seed: int, *, target_set: str = "validation"
) -> OutOfFold:  # fmt: skip
    """Ridge on the features of one try at the official points of the validation regions (or of another target set, as
    in `reproduction.places.labelled.probe_points`), under spatial blocks."""
    points = place_tables.points(profile)
    places = points[points["target_set"] == target_set].reset_index(drop=True)
    if not len(places):
        raise InputError(f"profile '{profile.name}' has no {target_set} region to judge a try on")
    table = splits.read_folds(profile)
    draws = range(profile.probing.n_frozen)
    fold = np.stack([splits.fold_of(places["cell"].to_numpy(), table, draw) for draw in draws])
    near = pairs_within(places["lat"], places["lon"], profile.maps.buffer_m)
    x = frozen_features.features(variant, method, seed, places, target_set)
    return ridge(x, places["price"].to_numpy(float), BufferedFolds(fold, near))


def file_of(profile: Profile, variant: Change, method: str, seed: int, *, tuned: bool = False) -> Path:
    """Where a try's rows are kept (with `tuned`, those of the test region), whether or not it has been made."""
    changed = {name: value for name, value in dataclasses.asdict(variant).items() if value is not None}
    parts = {
        "from": encoders.pretraining_config(profile, method, seed), "variant": changed,
        "share": profile.ablations.share, "points": place_tables.points_key(profile),
        "trials": profile.probing.n_frozen,
        "version": VERSION,
    }  # fmt: skip
    parts |= {"target_set": _test_set(profile), "share": 1.0} if tuned else {}
    label = f"{profile.name}-{method}-s{seed}{'-tuned' if tuned else ''}"
    return store.address("ablations", label, parts, ".csv")


def _test_set(profile: Profile) -> str:
    (region,) = profile.regions_for("test")
    return region.name


def run(
    profile: Profile, variant: Change, method: str, seed: int = 0, *, tuned: bool = False, progress: bool = True
) -> pd.DataFrame:  # fmt: skip
    """One try, trained and scored where it is not there yet: a row a trial. `tuned`: with all of the profile's images,
    and in the test region."""

    def make() -> pd.DataFrame:
        changed = tried(profile, method, variant, 1.0 if tuned else profile.ablations.share)
        folder = encoders.pretrained(changed, method, seed, progress=progress)
        last = pd.read_csv(folder / "metrics.csv").iloc[-1]
        target_set = _test_set(profile) if tuned else "validation"
        done = scored(profile, changed, method, seed, target_set=target_set)
        made = origin(profile, place_tables.points_key(profile), run_id=store.id_of(folder))
        rows = [
            {
                "experiment": "tuned" if tuned else "ablations", "method": method, "variant": variant.name,
                "seed": seed, "trial": trial, "metric": "mse", "value": float(value), "n": int(done.n_test[trial]),
                "images": changed.pretraining.images, "feature_spread": last["feature_spread"],
                "collapse": last["collapse"] if isinstance(last["collapse"], str) else "", **made,
            }
            for trial, value in enumerate(done.values("mse")[0])
        ]  # fmt: skip
        return pd.DataFrame(rows)

    return computed_once(file_of(profile, variant, method, seed, tuned=tuned), make)


def chosen(rows: pd.DataFrame) -> dict[str, Change]:
    """The try of each method that gains most over the method as it is in the validation regions, by the rows of a
    sweep; the method as it is where none gains more than seeds do by chance (or chance is not known)."""
    table = summary(rows)
    out = {}
    for method, part in table.groupby("method", sort=False):
        best = part.sort_values("gain", kind="stable").iloc[-1]
        name = str(best["variant"]) if best["gain"] > best["chance"] else AS_IT_IS.name
        out[str(method)] = next(variant for variant in tries(str(method)) if variant.name == name)
    return out


def tuned(profile: Profile, rows: pd.DataFrame, *, progress: bool = True) -> pd.DataFrame:
    """What `chosen` tries and the methods as they are give in the test region, trained as the table's rows are and
    computed where they are not there yet: a row a trial."""
    parts = [
        run(profile, variant, method, tuned=True, progress=progress)
        for method, best in chosen(rows).items()
        for variant in ((AS_IT_IS,) if best is AS_IT_IS else (AS_IT_IS, best))
    ]
    return pd.concat(parts, ignore_index=True)


def planned(profile: Profile, which: Iterable[str] = SWEPT) -> list[tuple[str, Change, int]]:
    """(method, try, seed) of the whole sweep, the methods in turn; the method as it is by several seeds."""
    seeds = [(method, AS_IT_IS, seed) for seed in range(1, profile.ablations.seeds) for method in which]
    turns = zip(*([(method, variant, 0) for variant in tries(method)] for method in which), strict=True)
    first, *others = turns
    return [*first, *seeds, *(one for turn in others for one in turn)]


def sweep(profile: Profile, which: Iterable[str] = SWEPT, *, progress: bool = True) -> pd.DataFrame:
    """All tries of some methods, computing what is missing."""
    with tqdm(planned(profile, which), desc=f"ablations ({profile.name})", unit="try", disable=not progress) as bar:
        return pd.concat([run(profile, variant, method, seed, progress=progress) for method, variant, seed in bar])


def chapter(profile: Profile) -> pd.DataFrame:
    """`summary` of all tries, computing what is missing; what they choose is scored in the test region, too."""
    rows = sweep(profile)
    tuned(profile, rows)
    return summary(rows)


def finished(profile: Profile) -> dict[str, pd.DataFrame]:
    """What is there to publish, by file name; computes nothing."""
    files = {
        "ablations.csv": [file_of(profile, variant, method, seed) for method, variant, seed in planned(profile)],
        "tuned.csv": [file_of(profile, v, method, 0, tuned=True) for method in SWEPT for v in tries(method)],
    }
    there = {name: [read_csv(file) for file in of if file.exists()] for name, of in files.items()}
    return {name: pd.concat(tables, ignore_index=True) for name, tables in there.items() if tables}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a try: mean and sd of the error over trials, and the gain over the method as it is (positive: better).

    What is tried is trained once, with seed 0, and compared with the mean of the method as it is over its seeds.
    Columns: method, variant, mean, sd, n, seeds, collapse, gain; `chance`, the largest gain or loss of the method as
    it is from its own mean, by seed alone (NaN for one seed).
    """
    rows = rows.assign(collapse=rows["collapse"].fillna(""))  # as a file gives it back
    table = rows.groupby(["method", "variant"], sort=False).agg(
        mean=("value", "mean"), sd=("value", "std"), n=("value", "count"), seeds=("seed", "nunique"),
        collapse=("collapse", "first"),
    ).reset_index()  # fmt: skip
    base = rows[rows["variant"] == AS_IT_IS.name].groupby(["method", "seed"])["value"].mean()
    means = base.groupby("method").mean()
    chance = (base - means).abs().groupby("method").max().where(base.groupby("method").count() > 1)
    table["gain"] = table["method"].map(means) - table["mean"]
    return table.assign(chance=table["method"].map(chance))


def said(table: pd.DataFrame) -> list[str]:
    """What `summary`'s table says, a sentence a method: the tries that differ by more than seeds do."""
    out = []
    for method, part in table.groupby("method", sort=False):
        others = part[part["variant"] != AS_IT_IS.name]
        own, chance = part[part["variant"] == AS_IT_IS.name].iloc[0], float(part["chance"].iloc[0])
        better, worse = others[others["gain"] > chance], others[others["gain"] < -chance]
        best = ", ".join(f"{row['variant']} ({row['gain']:+.3f})" for _, row in better.nlargest(3, "gain").iterrows())
        out.append(
            f"**{titles.title_of(str(method))}** as it is: {own['mean']:.3f}; runs that differ by seed alone lie "
            f"within ± {chance:.3f}. Of {len(others)} tries {len(better)} gain more than that"
            f"{f' ({best})' if best else ''}, {len(worse)} lose more."
        )
    return out


# -- how loud each loss is ---------------------------------------------------------------------------------------------


def gradient_norms(method: Method, batch: Batch, progress: float) -> dict[str, float]:
    """Norm of each loss's gradient at the features that all losses share: the encoder's outputs in all its passes.

    Losses are taken as they are, before the weights of eqs. 8 and 13. A loss that is not there is left out.
    """
    passes: list[Tensor] = []
    hook = method.encoder.register_forward_hook(lambda module, inputs, output: passes.append(output))
    try:
        out = method.loss(batch, progress)
    finally:
        hook.remove()
    shared = [one for one in passes if one.requires_grad]
    norms = {}
    for name in LOSSES:
        if name in out and out[name].requires_grad:
            found = torch.autograd.grad(out[name], shared, retain_graph=True, allow_unused=True)
            squares = [g.float().square().sum() for g in found if g is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


def loudness(
    profile: Profile, method: str = "gps_selm", *, after: Iterable[int] = (0, 25), batches: int = 4, seed: int = 0
) -> pd.DataFrame:
    """Mean gradient norms of each loss over some batches, after so many steps of training.

    Columns: `loss`, `after` (steps), `norm`, `weight` (its factor in eqs. 8 and 13) and `felt`, their product.
    """
    s = profile.pretraining
    third = s.alpha / 3
    weights = {"cl": 1.0, "price": third, "density": third, "coordinates": third, "rec": s.beta, "clust": s.gamma}
    sampler, on = encoders.sampler(profile), distributed.device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = new_encoder(encoders.encoder_config(profile), seed)
        made = methods.build(method, encoder, s, profile.views.global_px)
    trainer = Trainer(made, sampler, s, seed, on)
    rows = []
    for steps in sorted(after):
        while trainer.step < steps:
            trainer.train_step()
        found = []
        for number in range(batches):
            batch = trainer.method.draw(sampler, s.batch, step_generator(seed + 1, number, on))
            found.append(gradient_norms(made, batch, trainer.step / trainer.steps))
        for loss in found[0]:
            norm, weight = float(np.mean([one[loss] for one in found])), weights[loss]
            rows.append({"loss": loss, "after": steps, "norm": norm, "weight": weight, "felt": norm * weight})
    return pd.DataFrame(rows)
