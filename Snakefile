# The grid of one profile: pretrainings, the tables' probes, the book.
#
#   snakemake -j 4 --config profile=japan-cpu                                     one machine
#   snakemake -j 4 --config profile=japan --resources gpu=1                       one machine with one GPU
#   snakemake -j 32 --config profile=japan --executor slurm --default-resources slurm_partition=gpu
#
# What a job computes, and whether it must be computed at all, is the library's business: every command below asks the
# same cache that the notebooks ask (`runs/`, addressed by configuration and data), so a job whose result is there ends
# at once. The files in build/grid only tell Snakemake's jobs what came before them.
from selm.methods import METHODS, PRETRAINED
from selm.notebooks import library_hash
from selm.profiles import get_profile

PROFILE = get_profile(config.get("profile", "demo"))
GRID = f"build/grid/{PROFILE.name}"
LIBRARY = library_hash()  # jobs ask the cache again when the package or the committed data changed
ROWS = [name for name in PRETRAINED if METHODS[name].in_paper or config.get("controls", True)]
PRETRAININGS = [f"{name}-{seed}" for name in ROWS for seed in range(PROFILE.seeds_of(name))]


wildcard_constraints:
    method="|".join(PRETRAINED),
    seed=r"\d+",
    number=r"\d",


localrules: all


rule all:
    input:
        f"{GRID}/book.done",


rule locations:
    # atlases and labels, once, before the pretrainings that share them
    output:
        touch(f"{GRID}/locations.done"),
    params:
        library=LIBRARY,
    shell:
        "selm locations --profile {PROFILE.name}"


rule pretrain:
    input:
        f"{GRID}/locations.done",
    output:
        touch(f"{GRID}/pretrain/{{method}}-{{seed}}.done"),
    params:
        library=LIBRARY,
    resources:
        gpu=1,
    shell:
        "selm pretrain --profile {PROFILE.name} --method {wildcards.method} --seed {wildcards.seed}"


rule table:
    input:
        expand(f"{GRID}/pretrain/{{run}}.done", run=PRETRAININGS),
    output:
        touch(f"{GRID}/table{{number}}.done"),
    params:
        library=LIBRARY,
    resources:
        gpu=1,
    shell:
        "selm table {wildcards.number} --profile {PROFILE.name}"


rule book:
    input:
        expand(f"{GRID}/table{{number}}.done", number=[1, 2]),
    output:
        touch(f"{GRID}/book.done"),
    params:
        library=LIBRARY,
    shell:
        "python -m selm.notebooks fill --profile {PROFILE.name} --into build/book && "
        "jupyter-book build --quiet build/book --path-output build/book"
