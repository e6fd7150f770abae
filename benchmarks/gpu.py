"""Everything that wants a GPU, by one command, on a machine without a network.

    python -m benchmarks.gpu OUT --profile japan [--minutes 25] [--reference DINO] [--compile MODE]

The profile's maps are drawn where they are not there; `benchmarks.bundle` carries what that needs to a machine that has
neither data nor map libraries.

In this order, within the time: the pretraining step against the peers (pretraining.csv), where its time goes and what
each change gains (profile_step.csv, ablation.csv), embedding with a ready atlas (embedding.csv, encoder_share.csv),
and with the time that is left pretraining itself (`--train dino gps_selm`, as often as given): as many images as fit,
checkpoints on the way, bfloat16 weights, and the closed-form probe at the test points (train/…, probes.csv). A part
that fails is named at the end with its log (OUT/logs), and the others still run. Called again with the same OUT it
goes on: parts that are done are not repeated, trainings resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import measure
from selm import checkpoints, methods, stages
from selm.errors import InputError
from selm.experiments.grid import SPLITS, task
from selm.networks import MapEncoder
from selm.pretrain import Trainer, pretrain
from selm.probes.frozen import ridge
from selm.profiles import get_profile
from selm.settings import Profile
from selm.views import Batch, ViewSampler

PARTS = ("pretraining", "profile_step", "embedding", "encoder_share")


def encoder_of(profile: Profile, folder: Path) -> Path:
    """A randomly initialised encoder on disk, for measuring how fast one embeds."""
    if not (folder / "config.json").exists():
        stages.new_encoder(stages.encoder_config(profile), 0).save_pretrained(folder)
    return folder


def run_part(name: str, words: list[str], out: Path, seconds: float) -> str:
    """Run ``python -m words`` with its output in OUT/logs; returns '' or what went wrong in a line."""
    log = out / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}: at most {seconds / 60:.1f} minutes, log in {log}", file=sys.stderr, flush=True)
    with log.open("w") as file:
        try:
            done = subprocess.run([sys.executable, "-m", *words], stdout=file, stderr=subprocess.STDOUT,
                                  timeout=seconds, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{name}: not done after {seconds / 60:.1f} minutes (see {log})"
    return "" if done.returncode == 0 else f"{name}: ended with status {done.returncode} (see {log})"


def images_within(trainer: Trainer[ViewSampler, Batch], seconds: float, steps: int = 8) -> int:
    """How many images a run can see in so many seconds, from a few timed steps; the trainer is used up."""

    def timed(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            trainer.train_step()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(3)  # warm-up and compilation
    return max(1, int(0.9 * seconds * steps / timed(steps))) * trainer.settings.batch


def train(
    profile: Profile, method: str, out: Path, seconds: float, *, seed: int = 0, compiled: str | None = None
) -> Path:
    """Pretrain `method` on the profile's places for about so many seconds, or go on with a run that was stopped."""
    folder = out / "train" / f"{method}-s{seed}"
    config, on = stages.encoder_config(profile), stages.device()
    sampler = stages.sampler(profile)

    def trainer(images: int) -> Trainer[ViewSampler, Batch]:
        settings = dataclasses.replace(profile.pretraining, images=images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = methods.build(method, stages.new_encoder(config, seed), settings, profile.views.global_px)
        return Trainer(made, sampler, settings, seed, on, compiled=compiled)

    if (folder / "run.json").exists():
        images = int(checkpoints.read_json(folder / "run.json")["config"]["images"])
    else:
        images = images_within(trainer(10**9), seconds)
    about = {
        "method": method, "seed": seed, "profile": profile.name, "images": images,
        "pretraining": dataclasses.replace(profile.pretraining, images=images).settings(),
        "views": dataclasses.asdict(profile.views), "encoder": config.settings(),
        "data": stages.table_fingerprint(stages.locations(profile)),
        "maps": stages.map_fingerprint(profile, "pretrain"),
    }  # fmt: skip
    pretrain(trainer(images), folder, about, title=f"{method} (seed {seed})")
    encoder = MapEncoder.from_pretrained(str(folder))
    small = {name: v.bfloat16() if v.is_floating_point() else v for name, v in encoder.state_dict().items()}
    checkpoints.save_tensors(folder / "model-bfloat16.safetensors", small, {"encoder": encoder.config.arch})
    return folder


def probe(run: Path | None, profile: Profile) -> pd.DataFrame:
    """Ridge at the test points on the run's frozen features (a random encoder's where `run` is None), tidy rows."""
    network = MapEncoder.from_pretrained(str(run)) if run else stages.new_encoder(stages.encoder_config(profile), 0)
    rows = []
    for split in SPLITS:
        todo = task(profile, "table1", "l01", split)
        if not rows:  # the places are the same
            features = stages.encode(network, stages.point_images(profile, todo.places), stages.palette(profile))
        done = ridge(features, todo.targets, todo.folds)
        rows += done.rows(split=split, method=run.name if run else "random_init", setting="frozen-closed",
                          profile=profile.name, stand_in=profile.stand_ins)  # fmt: skip
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", default="japan")
    parser.add_argument("--minutes", type=float, default=25.0, help="for everything")
    parser.add_argument("--reference", type=Path, help="a checkout of facebookresearch/dino")
    parser.add_argument(
        "--compile",
        metavar="MODE",
        default="default" if torch.cuda.is_available() else "none",
        help="torch.compile in the step benchmark and in training; none: without",
    )
    parser.add_argument("--train", nargs="*", default=["dino", "gps_selm"], metavar="METHOD")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS)
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + 60 * chosen.minutes
    failed: list[str] = []
    try:
        name = chosen.profile
        profile = get_profile(name)
        stages.encoder_config(profile)  # maps and places, before the clock of any part runs
        atlas = next(iter(stages.atlases(profile, "pretrain").values())).path
    except InputError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    common = ["--profile", name, "--out", str(chosen.out), "--rounds", str(chosen.rounds)]
    batch = ["--batch", str(chosen.batch)] if chosen.batch else []
    mode = None if chosen.compile == "none" else chosen.compile
    compiled = ["--compile", mode] if mode else []
    graphs = ["--compile", "reduce-overhead"] if mode else []  # CUDA graphs, among the changes one by one
    peer = ["--reference", str(chosen.reference)] if chosen.reference else []
    model = encoder_of(profile, chosen.out / "random-encoder")
    parts = {
        "pretraining": ["benchmarks.pretraining", *common, *batch, *compiled, *peer],
        "profile_step": ["benchmarks.profile_step", *common, *batch, *compiled, *graphs],
        "embedding": ["benchmarks.embedding", "--model", str(model), "--map", str(atlas),
                      "--minutes", f"{chosen.minutes / 10:.2f}", "--out", str(chosen.out)],
        "encoder_share": ["benchmarks.encoder_share", str(atlas), "--out", str(chosen.out)],
    }  # fmt: skip
    for part, words in parts.items():
        if part in chosen.skip or (chosen.out / f"{part}.csv").exists():
            continue
        left = end - time.monotonic()
        share = left if not chosen.train else left / 3  # the rest is for training
        failed += filter(None, [run_part(part, words, chosen.out, max(1.0, share))])
    tables = [probe(None, profile)]
    for i, method in enumerate(chosen.train):
        left = (end - time.monotonic()) / (len(chosen.train) - i)
        try:
            run = train(profile, method, chosen.out, max(1.0, left), compiled=mode)
            tables.append(probe(run, profile))
        except (InputError, RuntimeError) as error:
            failed.append(f"training {method}: {str(error).splitlines()[0]}")
    rows = pd.concat(tables)
    if len(rows):
        rows = rows.assign(**measure.about(measure.command_line()))
        checkpoints.write_text(chosen.out / "probes.csv", rows.to_csv(index=False, lineterminator="\n"))
        shown = rows.groupby(["method", "split"])["value"].agg(["mean", "std"])
        print(shown.to_string(float_format=lambda value: f"{value:.3f}" if np.isfinite(value) else "-"))
    for line in failed:
        print(f"gpu: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
