# The grid of one profile: pretrainings, the tables' and figures' probes, the book.
#
#   snakemake -j 4 --config profile=japan-cpu gpus=0                              one machine
#   snakemake -j 4 --config profile=japan --resources gpu=1                       one machine with one GPU
#   snakemake -j 32 --config profile=japan gpus=4 --executor slurm --default-resources slurm_partition=gpu
#   snakemake -j 64 embedded --config coordinates=DIR map=SOURCE --executor slurm    embeddings of one's own places
#
# `gpus` is the number of GPUs of one pretraining (4: torchrun starts four processes that share its batch). `minutes` is
# the time asked for a pretraining, three times as much on the third try; a job that was killed or ran out of time is
# tried again and goes on from its last checkpoint. A job cancelled by hand is not noticed by version 2.8 of the Slurm
# plugin (seen with Slurm 22.05): interrupt Snakemake and start it again. `python -m benchmarks.cost` says what a profile
# will take, `python -m benchmarks.scale` what very many embeddings take.
#
# What a job computes, and whether it must be computed at all, is the library's business: every command below asks the
# same cache that the notebooks ask (`runs/`, addressed by configuration and data), so a job whose result is there ends
# at once. The files in build/grid only tell Snakemake's jobs what came before them.
from pathlib import Path
from shlex import quote

from reproduction.contents import FIGURES
from reproduction.notebooks import library_hash
from reproduction.profiles import get_profile
from reproduction.rows import PRETRAINED, ROWS as ALL_ROWS

PROFILE = get_profile(config.get("profile", "demo"))
GRID = f"build/grid/{PROFILE.name}"
LIBRARY = library_hash()  # jobs ask the cache again when the package or the committed data changed
ROWS = [name for name in PRETRAINED if ALL_ROWS[name].in_paper or config.get("controls", True)]
PRETRAININGS = [f"{name}-{seed}" for name in ROWS for seed in range(PROFILE.seeds_of(name))]
GPUS = int(config.get("gpus", 1))
MINUTES = int(config.get("minutes", 240))
REPRODUCTION = "python -m reproduction"
PARTS = Path(config.get("coordinates", "build/coordinates"))  # tables of places, a job each
EMBED = "selm embed" + (f" --map {quote(str(config['map']))}" if "map" in config else "")
TRAIN = REPRODUCTION if GPUS < 2 else f"torchrun --standalone --nproc-per-node {GPUS} -m reproduction"


def longer(minutes):
    """Minutes for a job, more with every try."""
    return lambda wildcards, attempt: minutes * attempt


wildcard_constraints:
    method="|".join(PRETRAINED),
    seed=r"\d+",
    number=r"\d",


localrules: all, embedded


rule all:
    input:
        f"{GRID}/book.done",


rule places:
    # atlases and labels, once, before the pretrainings that share them
    output:
        touch(f"{GRID}/places.done"),
    params:
        library=LIBRARY,
    retries: 2
    threads: 8
    resources:
        runtime=longer(120),
        mem_mb=16000,
    shell:
        "{REPRODUCTION} places --profile {PROFILE.name}"


rule pretrain:
    input:
        f"{GRID}/places.done",
    output:
        touch(f"{GRID}/pretrain/{{method}}-{{seed}}.done"),
    params:
        library=LIBRARY,
    retries: 3
    threads: 4
    resources:
        gpu=GPUS,
        runtime=longer(MINUTES),
        mem_mb=32000,
    shell:
        "{TRAIN} pretrain --profile {PROFILE.name} --method {wildcards.method} --seed {wildcards.seed}"


rule table:
    input:
        expand(f"{GRID}/pretrain/{{run}}.done", run=PRETRAININGS),
    output:
        touch(f"{GRID}/table{{number}}.done"),
    params:
        library=LIBRARY,
    retries: 2
    threads: 4
    resources:
        gpu=min(GPUS, 1),
        runtime=longer(MINUTES),
        mem_mb=32000,
    shell:
        "{REPRODUCTION} table {wildcards.number} --profile {PROFILE.name}"


rule figure:
    input:
        expand(f"{GRID}/pretrain/{{run}}.done", run=PRETRAININGS),
    output:
        touch(f"{GRID}/figure{{number}}.done"),
    params:
        library=LIBRARY,
    retries: 2
    threads: 4
    resources:
        gpu=min(GPUS, 1),
        runtime=longer(MINUTES),
        mem_mb=32000,
    shell:
        "{REPRODUCTION} figure {wildcards.number} --profile {PROFILE.name}"


rule book:
    input:
        expand(f"{GRID}/table{{number}}.done", number=[1, 2, 3, 4]),
        expand(f"{GRID}/figure{{number}}.done", number=list(FIGURES)),
    output:
        touch(f"{GRID}/book.done"),
    params:
        library=LIBRARY,
    shell:
        "python -m reproduction.notebooks fill --profile {PROFILE.name} --into build/book && "
        "jupyter-book build --quiet build/book --path-output build/book"


rule embedded:
    input:
        [PARTS / "embedded" / f"{table.name}.parquet" for table in sorted(PARTS.glob("*")) if table.is_file()],


rule embed:
    # maps are drawn as they are needed, into one cache (SELM_CACHE); a job that was killed goes on
    input:
        PARTS / "{table}",
    output:
        PARTS / "embedded" / "{table}.parquet",
    retries: 3
    threads: 4
    resources:
        runtime=longer(MINUTES),
        mem_mb=8000,
    shell:
        "{EMBED} {input:q} -o {output:q}"
