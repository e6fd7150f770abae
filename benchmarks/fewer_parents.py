"""What it gains, and what it costs, to rebuild the parents of some of a batch's places alone (`Pretraining.rec_share`).

    python -m benchmarks.fewer_parents [--seeds 3] [--rounds 7] [--shares 1 0.25]

Time: a step of DINO and of GPS-SELM, both with GPS-SELM's recipe, in turn, by processor time, on the demo's places.
Quality: GPS-SELM trained as a try of `reproduction.experiments.tuning` is (51,200 images, japan-cpu's places), and its
two numbers in the validation regions. Needs `SELM_DATA` with Japan's maps; some five minutes of a core for each run.
Writes fewer_parents.csv, a row a share.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable

from benchmarks import measure
from benchmarks.steps import open_run, scaled
from reproduction.experiments import tuning
from reproduction.profiles import get_profile
from reproduction.recipes import chosen as recipe_of
from reproduction.settings import Change, Profile

PROFILE, METHOD, BASE = "japan-cpu", "gps_selm", "DINO"


def change(share: float) -> Change:
    """GPS-SELM's recipe with a share of its parents; the recipe itself for all of them."""
    own = recipe_of(METHOD)
    if share == 1:
        return own
    return dataclasses.replace(
        own, name=f"{own.name}, parents of {share:g}", pretraining=(*own.pretraining, ("rec_share", share))
    )


def step_ways(shares: list[float], steps: int) -> dict[str, Callable[[], float]]:
    """Name → some steps: DINO's, and GPS-SELM's for each share."""
    plain = scaled("demo", PROFILE)

    def way(method: str, profile: Profile) -> Callable[[], float]:
        run = open_run(profile, method)
        return lambda: run.steps(steps)

    return {
        BASE: way("dino", recipe_of(METHOD).of(plain)),
        **{f"{share:g}": way(METHOD, change(share).of(plain)) for share in shares},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    measure.options(parser)
    asked = parser.parse_args()
    os.environ.setdefault("SELM_DEVICE", "cpu")
    rates = measure.interleaved(step_ways(asked.shares, asked.steps), asked.rounds, BASE)
    rows = []
    for share in asked.shares:
        tried = [tuning.run(get_profile(PROFILE), METHOD, change(share), seed) for seed in range(asked.seeds)]
        price, recall = ([float(row[name].iloc[0]) for row in tried] for name in ("price", "recall"))
        rate = rates[f"{share:g}"]
        rows.append({
            "share": share, "step_over_dino": 1 / rate.cpu_ratio, "least": 1 / rate.high, "greatest": 1 / rate.low,
            "price": sum(price) / len(price), "price_seeds": f"{min(price):.3f}-{max(price):.3f}",
            "recall": sum(recall) / len(recall), "recall_seeds": f"{min(recall):.1%}-{max(recall):.1%}",
            "seeds": asked.seeds, "images": tuning.IMAGES,
        })  # fmt: skip
    measure.report("fewer_parents", rows, asked, profile=PROFILE, rounds=asked.rounds)


if __name__ == "__main__":
    main()
