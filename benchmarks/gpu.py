"""Everything that wants a GPU, by one command, on a machine without a network.

    python -m benchmarks.gpu OUT --profile japan-gpu [--minutes 12] [--lanes 4] [--reference DINO] [--compile MODE]

The profile's maps are drawn where they are not there; `benchmarks.bundle` carries what that needs to a machine that has
neither data nor map libraries.

In this order, within the time: the pretraining step against the peers (pretraining.csv), where its time goes and what
each change gains (profile_step.csv, ablation.csv), embedding with a ready atlas (embedding.csv, encoder_share.csv), and
with the time that is left the profile's own runs: every row pretrained and its frozen features probed in Tables 1 and 2
by several processes at once (`benchmarks.lane`), for `python -m reproduction publish`. A part that fails is named at
the end with its log (OUT/logs), and the others still run. Called again with the same OUT it goes on: what is done is
not repeated, trainings resume.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from reproduction.computed import drawn_maps, encoders, place_tables
from reproduction.experiments import table1_table2
from reproduction.profiles import get_profile
from reproduction.settings import Profile
from selm import encoder, files
from selm.errors import InputError

PARTS = ("pretraining", "profile_step", "embedding", "encoder_share")


def encoder_of(profile: Profile, folder: Path) -> Path:
    """A randomly initialised encoder on disk, for measuring how fast one embeds."""
    if not (folder / "config.json").exists():
        encoder.new_encoder(encoders.encoder_config(profile), 0).save_pretrained(folder)
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


def lanes(words: list[str], n: int, out: Path, seconds: float) -> list[str]:
    """Run `benchmarks.lane` n times at once, with logs in OUT/logs; returns a line for each that did not end well."""
    (out / "logs").mkdir(parents=True, exist_ok=True)
    end, running = time.monotonic() + seconds, []
    for number in range(1, n + 1):
        log = (out / "logs" / f"lane-{number}.log").open("a")
        command = [sys.executable, "-m", "benchmarks.lane", str(out), *words, "--minutes", str(seconds / 60)]
        running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        log.close()
    failed = []
    for number, process in enumerate(running, start=1):
        try:
            status = process.wait(max(0.0, end - time.monotonic()))
            said = f"ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            said = "was stopped when the time was up"
        failed += [f"lane {number} {said} (see {out / 'logs'})"] if said else []
    return failed


def scores(profile: Profile) -> pd.DataFrame:
    """Mean and deviation over trials of the probes that have been computed."""
    tables = [rows for name in table1_table2.TABLES if len(rows := table1_table2.finished(profile, name))]
    if not tables:
        return pd.DataFrame()
    by = ["experiment", "target", "split", "setting", "epochs", "metric", "method"]
    return pd.concat(tables).groupby(by, sort=False)["value"].agg(["mean", "std"]).reset_index()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", default="japan-gpu")
    parser.add_argument("--minutes", type=float, default=25.0, help="for everything")
    parser.add_argument("--reference", type=Path, help="a checkout of facebookresearch/dino")
    parser.add_argument("--like", metavar="PROFILE", help="the step benchmarks with this profile's encoder and views")
    parser.add_argument(
        "--compile",
        metavar="MODE",
        default="default" if torch.cuda.is_available() else "none",
        help="torch.compile in the step benchmarks; none: without",
    )
    parser.add_argument("--lanes", type=int, default=4, help="processes that train at once; 0: benchmarks alone")
    parser.add_argument("--rows", nargs="*", metavar="METHOD", help="train these alone")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS)
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + 60 * chosen.minutes
    failed: list[str] = []
    try:
        name = chosen.profile
        profile = get_profile(name)
        encoders.encoder_config(profile)  # maps and places, before the clock of any part runs
        place_tables.interpolated(profile)
        atlas = next(iter(drawn_maps.atlases(profile, "pretrain").values())).path
    except InputError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    common = ["--profile", name, "--out", str(chosen.out), "--rounds", str(chosen.rounds)]
    common += ["--like", chosen.like] if chosen.like else []
    batch = ["--batch", str(chosen.batch)] if chosen.batch else []
    mode = None if chosen.compile == "none" else chosen.compile
    compiled = ["--compile", mode] if mode else []
    graphs = ["--compile", "reduce-overhead"] if mode else []  # CUDA graphs, among the changes one by one
    peer = ["--reference", str(chosen.reference)] if chosen.reference else []
    wanted = ["--profile", name, *(["--rows", *chosen.rows] if chosen.rows is not None else [])]
    model = encoder_of(profile, chosen.out / "random-encoder")
    steady = ["--steps", "20"] if torch.cuda.is_available() else []  # more than what the peers' loaders hold ready
    parts = {
        "pretraining": ["benchmarks.pretraining", *common, *batch, *steady, *compiled, *peer],
        "profile_step": ["benchmarks.profile_step", *common, *batch, *compiled, *graphs],
        "embedding": ["benchmarks.embedding", "--model", str(model), "--map", str(atlas),
                      "--minutes", f"{chosen.minutes / 10:.2f}", "--out", str(chosen.out)],
        "encoder_share": ["benchmarks.encoder_share", str(atlas), "--out", str(chosen.out)],
    }  # fmt: skip

    def share() -> float:
        """Seconds for a part: where rows are to be trained, most of the time is theirs."""
        left = end - time.monotonic()
        return max(1.0, left / 3 if chosen.lanes else left)

    for part, words in parts.items():
        if part not in chosen.skip and not (chosen.out / f"{part}.csv").exists():
            failed += filter(None, [run_part(part, words, chosen.out, share())])
    if chosen.lanes:
        failed += lanes(wanted, chosen.lanes, chosen.out, max(1.0, end - time.monotonic()))
        table = scores(profile)
        files.write_text(chosen.out / "scores.csv", table.to_csv(index=False, lineterminator="\n"))
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    for line in failed:
        print(f"gpu: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
