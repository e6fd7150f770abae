"""Fewer numbers a place: directions in the space of embeddings, kept in a file so that other tables get the same ones.

They are principal components of a table, or come along with an encoder (`selm.bundled.Bundled.reduction`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selm import checkpoints
from selm.errors import InputError

MOST = 20_000  # rows that components are learned from


@dataclass(frozen=True)
class Reduction:
    """Embeddings (N, dim), each number standardised by `mean` and `scale` (dim,), on `directions` (dim, n).

    Standardised numbers are held within ± `clip`: what was hardly ever seen is not blown up where it is common. `kept`
    is their share of the variance; `identity` says which embeddings it was learned from
    (`selm.embedding.map_embedder.MapEmbedder.identity`).
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    kept: float
    identity: str
    clip: float = np.inf

    @property
    def dim(self) -> int:
        return self.directions.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers."""
        parts = {"mean": self.mean, "scale": self.scale, "directions": self.directions}
        return checkpoints.digest({**parts, "clip": np.array([self.clip])})

    @property
    def names(self) -> list[str]:
        return [f"pc{number}" for number in range(self.dim)]

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, dim) → (N, n) float32."""
        standardised = np.clip((embeddings - self.mean) / self.scale, -self.clip, self.clip)
        return np.asarray(standardised @ self.directions, np.float32)

    def save(self, path: Path) -> None:
        tensors = {name: getattr(self, name) for name in ("mean", "scale", "directions")}
        numbers = {"kept": repr(self.kept), "clip": repr(float(self.clip))}
        checkpoints.save_tensors(path, tensors, {**numbers, "identity": self.identity})

    @classmethod
    def load(cls, path: Path, identity: str) -> Reduction:
        """Raises InputError where the file cannot be read or is of other embeddings."""
        tensors, meta = checkpoints.load_arrays(path)
        if not {"mean", "scale", "directions"} <= set(tensors) or "identity" not in meta:
            raise InputError(f"{path}: not a reduction of embeddings")
        if meta["identity"] != identity:
            raise InputError(f"{path}: a reduction of other embeddings (another encoder, or other options)")
        kept, clip = float(meta["kept"]), float(meta.get("clip", "inf"))
        return cls(tensors["mean"], tensors["scale"], tensors["directions"], kept, identity, clip)


def check(n: int, rows: int, dim: int) -> None:
    """Raise InputError where so many rows of so many numbers have fewer than `n` components."""
    if not 1 <= n <= min(rows, dim):
        raise InputError(f"a PCA to {n} numbers needs as many rows and numbers: there are {rows} rows of {dim} numbers")


def fit(embeddings: NDArray[np.float32], rows: NDArray[np.int64], n: int, identity: str) -> Reduction:
    """The first `n` components of some rows of embeddings (N, dim); of many rows a random part, the same every time.

    Raises InputError where there are fewer rows or numbers than components.
    """
    from sklearn.decomposition import PCA

    check(n, len(rows), embeddings.shape[1])
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    some = embeddings[rows]
    mean, scale = some.mean(axis=0), some.std(axis=0)
    scale = np.where(scale > 1e-6 * np.abs(mean) + 1e-12, scale, 1).astype(np.float32)
    found = PCA(n, random_state=0).fit((some - mean) / scale)
    directions = np.ascontiguousarray(found.components_.T, dtype=np.float32)
    return Reduction(mean.astype(np.float32), scale, directions, float(found.explained_variance_ratio_.sum()), identity)
