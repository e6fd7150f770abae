"""Nearest embeddings among millions: exact search against the index, in time, memory and neighbours found.

    python -m benchmarks.search [--sizes 1000000x128 10000000x128] [--questions 50] [--dims 128]

Made-up embeddings in clusters, written as `selm embed` writes them (10,000,000 x 128 take 5 GB of disk and the index
2.6 GB more; `--folder` says where). Exact search holds all embeddings in memory and is left out above `--exact-gib`;
the true neighbours are then found piece by piece. Each row's memory is that of a process of its own. Writes search.csv.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import measure
from selm.embedding.search import Index, Nearest, largest
from selm.embedding.tables import embedding_pieces, read_embeddings

K = 10


def write_embeddings(path: Path, n: int, dim: int, seed: int = 0) -> None:
    """n made-up embeddings: 2,000 clusters along directions of falling variance, and places in Japan's box."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.arange(1, dim + 1) ** 0.5).astype(np.float32)
    centres = rng.standard_normal((2_000, dim), np.float32) * scale
    names = [f"e{i}" for i in range(dim)]
    fields = [pa.field("lat", pa.float64()), pa.field("lon", pa.float64()), *(pa.field(e, pa.float32()) for e in names)]
    step = max(1, 2**26 // (4 * dim))
    with pq.ParquetWriter(path, pa.schema(fields), compression="none", use_dictionary=False) as writer:
        for start in range(0, n, step):
            m = min(step, n - start)
            x = centres[rng.integers(0, len(centres), m)] + 0.5 * scale * rng.standard_normal((m, dim), np.float32)
            columns = [33 + 10 * rng.random(m), 130 + 12 * rng.random(m), *np.ascontiguousarray(x.T)]
            writer.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], schema=pa.schema(fields)))


def truth(path: Path, questions: NDArray[np.float32]) -> NDArray[np.int64]:
    """The K nearest rows by cosine of each question, piece by piece."""
    unit = questions / np.linalg.norm(questions, axis=1, keepdims=True)
    rows, best = np.zeros((len(unit), 0), np.int64), np.zeros((len(unit), 0), np.float32)
    for start, _, piece in embedding_pieces(path):
        similarity = unit @ (piece / np.linalg.norm(piece, axis=1, keepdims=True)).T
        numbers = np.broadcast_to(np.arange(start, start + len(piece)), similarity.shape)
        rows, best = largest(np.hstack([rows, numbers]), np.hstack([best, similarity]), K)
    return rows


def _asked(open_: Callable[[], Any], questions: NDArray[np.float32], answer: Any) -> None:
    start = time.perf_counter()
    opened = open_()
    opening = time.perf_counter() - start
    rows, times = [], []
    for question in questions:
        start = time.perf_counter()
        rows.append(opened.query(question, K)[0][0])
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    answer.send((opening, 1000 * float(np.median(times)), memory, np.array(rows)))


def asked(open_: Callable[[], Any], questions: NDArray[np.float32], true: NDArray[np.int64]) -> dict[str, Any]:
    """Open and ask in a process of its own: seconds to open, ms a question, memory, share of the true K found."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_asked, args=(open_, questions, there))
    child.start()
    there.close()
    opening, ms, memory, rows = here.recv()
    child.join()
    recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(true.tolist(), rows.tolist(), strict=True)]))
    return {"open_s": opening, "ms": ms, "mib": memory, "recall": recall}


def _exact(path: Path) -> Nearest:
    table, embeddings = read_embeddings(path)
    return Nearest(embeddings, table["lat"], table["lon"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1000000x128", "10000000x128"], metavar="NxDIM")
    parser.add_argument("--dims", type=int, default=128, help="what the index projects to")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--exact-gib", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="for the files, removed at the end")
    measure.options(parser)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in chosen.sizes:
        n, dim = (int(word) for word in size.split("x"))
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            file, index = Path(name) / "embeddings.parquet", Path(name) / "index"
            print(f"{n:,} embeddings of {dim} numbers", file=sys.stderr, flush=True)
            write_embeddings(file, n, dim)
            first = next(embedding_pieces(file))[2]
            questions = first[:: max(1, len(first) // chosen.questions)][: chosen.questions]
            true = truth(file, questions)
            common = {"places": n, "dims": dim}
            if 4 * n * dim <= chosen.exact_gib * 2**30:
                found = asked(lambda file=file: _exact(file), questions, true)
                rows.append({"way": "exact", **common, **found, "disk_mib": file.stat().st_size / 2**20})
            used = measure.in_child("selm", "index", str(file), "--out", str(index), "--dims", str(chosen.dims))
            found = asked(lambda index=index: Index(index), questions, true)
            disk = sum(f.stat().st_size for f in index.iterdir()) / 2**20
            rows.append({
                "way": "index", **common, "dims": min(dim, chosen.dims), **found, "disk_mib": disk,
                "build_s": used["seconds"], "build_cpu_s": used["cpu_seconds"], "build_mib": used["peak_mib"],
            })  # fmt: skip
    measure.report("search", rows, chosen, questions=chosen.questions)


if __name__ == "__main__":
    main()
