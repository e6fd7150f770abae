"""Networks from coordinates to embeddings: a position encoding, which but for learnt tables has no weights, then a
perceptron."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reproduction.beyond.location_encoders.frame import Frame
from reproduction.beyond.location_encoders.grid import FeatureGrid, resolutions
from reproduction.beyond.location_encoders.harmonics import real_harmonics
from selm import checkpoints, files
from selm.errors import InputError, unknown

POSITIONS = ("raw", "sinusoidal", "fourier", "harmonics", "grid")
NETWORKS = ("relu", "siren")
COARSEST = 16  # cells a side of a grid's first level, as in Müller et al.


@dataclass(frozen=True)
class LocationConfig:
    """What a location encoder is.

    `position`: how coordinates enter the network, each in the frame −1 … 1
    (`reproduction.beyond.location_encoders.frame`).
      ``raw``         the two numbers themselves.
      ``sinusoidal``  sines and cosines of both at `scales` wavelengths, in geometric steps from the frame's side to
                      `shortest_m` metres (Space2Vec's grid, Mai et al. 2020).
      ``fourier``     for each σ of `sigmas`, `features` random directions drawn from N(0, σ²): cos 2πBx and sin 2πBx;
                      each σ has a network of its own and their outputs are added (GeoCLIP).
      ``harmonics``   the frame is laid on the sphere, its sides at ± `span_degrees` of longitude and latitude, and all
                      real spherical harmonics of degree below `degrees` are taken there (SatCLIP).
      ``grid``        learnt vectors on the corners of `grid_levels` grids, from 16 cells a side to cells of `cell_m`
                      metres, `grid_features` numbers a corner in tables of at most `grid_entries`
                      (`reproduction.beyond.location_encoders.grid`; Müller et al. 2022).
    `network`: ``relu`` or ``siren`` (Sitzmann et al. 2020: sines, the first layer's times `first_omega`).
    `dim`: of the embedding.  `layers` hidden ones of `hidden` units.  `seed` draws B of ``fourier``.
    """

    position: str
    network: str
    frame: Frame
    dim: int
    hidden: int = 256
    layers: int = 2
    scales: int = 16
    shortest_m: float = 500.0
    sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)  # GeoCLIP: 2^0, 2^4, 2^8
    features: int = 256  # GeoCLIP: 256 directions, 512 numbers
    degrees: int = 20
    span_degrees: float = 60.0
    first_omega: float = 30.0  # Sitzmann et al.; SatCLIP's first layer too
    seed: int = 0
    grid_levels: int = 12
    grid_features: int = 4
    grid_entries: int = 2**16
    cell_m: float = 500.0


class Sine(nn.Module):
    """A SIREN layer: sin(ω (Wx + b)), with the initialisation that keeps its inputs' distribution."""

    def __init__(self, n_in: int, n_out: int, omega: float = 1.0, first: bool = False):
        super().__init__()
        self.linear, self.omega = nn.Linear(n_in, n_out), omega
        limit = 1 / n_in if first else math.sqrt(6 / n_in) / omega
        nn.init.uniform_(self.linear.weight, -limit, limit)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * self.linear(x))


def perceptron(kind: str, n_in: int, hidden: int, layers: int, n_out: int, first_omega: float) -> nn.Sequential:
    """`layers` hidden layers, ReLU or sine, then a linear one."""
    widths = [n_in] + [hidden] * layers
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        if kind == "siren":
            parts.append(Sine(a, b, first_omega if i == 0 else 1.0, first=i == 0))
        else:
            parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], n_out))


class LocationEncoder(nn.Module):
    """(N, 2) degrees (lat, lon), float64 → (N, dim) float32."""

    directions: Tensor  # (number of sigmas, 2, features), of ``fourier``

    def __init__(self, config: LocationConfig):
        super().__init__()
        if config.position not in POSITIONS:
            raise unknown("position encoding", config.position, POSITIONS)
        if config.network not in NETWORKS:
            raise unknown("network", config.network, NETWORKS)
        self.config, self.dim = config, config.dim
        finest = max(COARSEST, round(2 * config.frame.half_m / config.cell_m))
        cells = resolutions(COARSEST, finest, config.grid_levels)
        grid = FeatureGrid(cells, config.grid_entries, config.grid_features) if config.position == "grid" else None
        width = {
            "raw": 2, "sinusoidal": 4 * config.scales, "fourier": 2 * config.features, "harmonics": config.degrees**2,
        }[config.position] if grid is None else grid.width  # fmt: skip
        parts = 1
        if config.position == "fourier":
            parts = len(config.sigmas)
            drawn = torch.randn(parts, 2, config.features, generator=torch.Generator().manual_seed(config.seed))
            self.register_buffer("directions", drawn * torch.tensor(config.sigmas)[:, None, None])
        networks = [
            perceptron(config.network, width, config.hidden, config.layers, config.dim, config.first_omega)
            for _ in range(parts)
        ]
        if grid is not None:
            networks[0].insert(0, grid)
        self.networks = nn.ModuleList(networks)

    @torch.no_grad()
    def positions(self, coordinates: Tensor) -> Tensor:
        """The position encoding (``grid``: what its tables are asked): (N, 2) degrees → (parts, N, width) float32."""
        config = self.config
        at = config.frame.scaled(coordinates)
        if config.position in ("raw", "grid"):
            return at.float()[None]
        if config.position == "sinusoidal":
            longest, shortest = 2 * config.frame.half_m, config.shortest_m
            steps = torch.arange(config.scales, dtype=torch.float64, device=at.device) / max(config.scales - 1, 1)
            wavelength = longest * (shortest / longest) ** steps / config.frame.half_m  # in the frame's units
            phase = (2 * math.pi * at[:, :, None] / wavelength).flatten(1)
            return torch.cat([phase.sin(), phase.cos()], dim=1).float()[None]
        if config.position == "fourier":
            phase = 2 * math.pi * (at @ self.directions.double())  # (parts, N, features)
            return torch.cat([phase.cos(), phase.sin()], dim=-1).float()
        turned = torch.deg2rad(at * config.span_degrees)
        # beyond the poles of the blown-up sphere there is nothing: the nearest place is taken
        lat = turned[:, 1].clamp(-math.pi / 2, math.pi / 2)
        # of unit mean square, as the other encodings are, whatever the number of functions
        return (real_harmonics(lat, turned[:, 0], config.degrees) * math.sqrt(4 * math.pi)).float()[None]

    def encode_positions(self, positions: Tensor) -> Tensor:
        """What `positions` returns, or some of its places → (N, dim)."""
        parts = [network(part) for network, part in zip(self.networks, positions, strict=True)]
        return torch.stack(parts).sum(dim=0)

    def forward(self, coordinates: Tensor) -> Tensor:
        return self.encode_positions(self.positions(coordinates))

    @torch.no_grad()
    def embed(self, coordinates: Tensor, batch: int = 8192) -> Tensor:
        """(N, 2) degrees → (N, dim) float32 on the CPU, in evaluation mode and in batches; raises for bad input."""
        if coordinates.ndim != 2 or coordinates.shape[1] != 2:
            raise InputError(f"coordinates: expected an array (places, 2), got shape {tuple(coordinates.shape)}")
        bad = ~torch.isfinite(coordinates).all(dim=1)
        if bad.any():
            raise InputError(f"coordinates: row {int(bad.nonzero()[0])} is not a coordinate")
        on = next(self.parameters()).device
        was = self.training
        self.eval()
        parts = [self(part.to(on)).float().cpu() for part in coordinates.split(batch)]
        self.train(was)
        return torch.cat(parts) if parts else torch.zeros(0, self.dim)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `location.json` and `location.safetensors`."""
        checkpoints.save_tensors(Path(folder) / "location.safetensors", self.state_dict())
        files.write_json(Path(folder) / "location.json", dataclasses.asdict(self.config))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LocationEncoder:
        """The encoder in a folder, in evaluation mode; raises InputError that names the file at fault."""
        file = Path(folder) / "location.json"
        raw = files.read_json(file)
        known = {field.name for field in dataclasses.fields(LocationConfig)}
        if not isinstance(raw, dict) or set(raw) != known:
            raise InputError(f"{file}: not a location encoder's configuration")
        raw = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
        try:
            encoder = cls(LocationConfig(**{**raw, "frame": Frame(**raw["frame"])}))
        except (InputError, TypeError) as error:
            raise InputError(f"{file}: {error}") from None
        weights = Path(folder) / "location.safetensors"
        tensors, _ = checkpoints.load_tensors(weights)
        checkpoints.load_into(encoder, tensors, weights)
        return encoder.eval()
