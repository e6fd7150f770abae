"""Feature tables over a square at many resolutions (Müller et al. 2022, "Instant neural graphics primitives").

Level l cuts the square into N_l × N_l cells, N_l in geometric steps (their eqs. 2 and 3). Every corner of a cell has a
vector of its own in the level's table, and a place takes the bilinear mean of its cell's four corners. Where corners
outnumber a table's entries, they share them by a hash (their eq. 4); the other levels tell apart what meets in one. All
levels' vectors, side by side, go into a perceptron.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PRIME = 2_654_435_761  # of the hash, for the second coordinate; that of the first is 1


def resolutions(coarsest: int, finest: int, levels: int) -> list[int]:
    """N_l: cells along a side at each level, from `coarsest` to `finest`."""
    growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
    return [round(coarsest * growth**level) for level in range(levels)]


class FeatureGrid(nn.Module):
    """(N, 2) in −1 … 1 → (N, levels · features); what lies outside the square is taken to its border.

    `entries` a table at most.
    """

    def __init__(self, cells: list[int], entries: int, features: int):
        super().__init__()
        self.cells, self.entries, self.features = cells, entries, features
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(min((n + 1) ** 2, entries), features).uniform_(-1e-4, 1e-4)) for n in cells
        )

    @property
    def width(self) -> int:
        return len(self.cells) * self.features

    def rows(self, corners: Tensor, n: int) -> Tensor:
        """Where the table of a level of n × n cells has the vectors of corners (…, 2), int64 of 0 … n."""
        if (n + 1) ** 2 <= self.entries:
            return corners[..., 1] * (n + 1) + corners[..., 0]
        return (corners[..., 0] ^ corners[..., 1] * _PRIME) % self.entries

    def forward(self, at: Tensor) -> Tensor:
        inside = (at.clamp(-1, 1) + 1) / 2
        out = []
        for n, table in zip(self.cells, self.tables, strict=True):
            scaled = inside * n
            low = scaled.floor().clamp(max=n - 1)
            share = scaled - low  # (N, 2): towards the east, towards the north
            low = low.long()
            mixed = torch.zeros(len(at), self.features, device=at.device)
            for east in (0, 1):
                for north in (0, 1):
                    corner = low + torch.tensor([east, north], device=at.device)
                    weight = (share[:, 0] if east else 1 - share[:, 0]) * (share[:, 1] if north else 1 - share[:, 1])
                    mixed = mixed + weight[:, None] * table[self.rows(corner, n)]
            out.append(mixed)
        return torch.cat(out, dim=1)
