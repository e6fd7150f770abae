"""GPS-SELM over several zooms: one encoder with shared weights sees a coordinate's concentric surroundings.

Beyond the paper. One zoom-17 image holds little about a place; its surroundings hold more. Here the views of a place
are cut at two zooms of a list, which change from place to place and from step to step, and the losses stay as they are:
the student must recognise a place across zooms (eq. 4), and price, density and coordinates are predicted from every
zoom (eq. 8). The embedding of a coordinate is the encoder's features at all zooms, side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selm.encoder import MapEncoder
from selm.errors import InputError
from selm.methods.gps_selm import GEO, GPSSELM, Terms
from selm.settings import Pretraining
from selm.views import Batch, ViewSampler, cut_in_colours, random_windows, reach

WIDE = (17, 16, 15, 14, 13, 12, 11, 10)  # up to 32 km: a city and what lies around it


@dataclass(frozen=True)
class MultiZoomSettings:
    """Ours, all of it."""

    terms: Terms = GEO
    zooms: tuple[int, ...] = (17, 16, 15, 14)  # in Japan an image is 250 m to 2 km wide
    across: bool = True  # False: all views of a place at one zoom

    def __post_init__(self) -> None:
        if self.terms.reconstruction:
            raise InputError("several zooms: there is no parent image to reconstruct at every zoom")


class MultiZoom(GPSSELM):
    """See the module. `zooms` are those that the sampler's atlas must hold and the embedding is made of."""

    def __init__(self, encoder: MapEncoder, settings: Pretraining, own: MultiZoomSettings, image_px: int):
        super().__init__(encoder, settings, own.terms, image_px)
        self.zooms, self.across = own.zooms, own.across
        self.centres: dict[int, Tensor] = {}

    def prepare(self, sampler: ViewSampler) -> None:
        """See `Method.prepare`: where the places lie at each zoom."""
        lat, lon = sampler.places.T
        self.centres = {zoom: sampler.atlas_at(zoom).locate(lat, lon, zoom) for zoom in self.zooms}

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """See `Method.draw`. Half of a place's views are cut at one zoom, half at another (or the same)."""
        rows, views = sampler.draw_rows(n, generator), sampler.views
        px, degrees, local = views.global_px, views.rotation_degrees, views.local_px
        wide = random_windows(n, 2, px, views.global_area, views.zoom, degrees, generator)
        narrow = random_windows(n, views.n_local, px, views.local_area, views.zoom, degrees, generator)
        palette = sampler.colours(n, 2 + views.n_local, generator, part)
        rows, numbers = rows[part], range(n)[part]
        # the generator's seed changes with the step: which zooms meet does too, without asking the device
        turns = (0, generator.initial_seed() % len(self.zooms) if self.across else 0)
        device = rows.device
        channels = palette.shape[-1]
        global_views = _empty(2, len(rows), channels, px, device)
        local_views = _empty(views.n_local, len(rows), channels, local, device)
        patch_px = max(reach(px, area, views.zoom) for area in (views.global_area, views.local_area))
        for half, turn in enumerate(turns):
            for k, zoom in enumerate(self.zooms):
                chosen = [j for j, number in enumerate(numbers) if (number + turn) % len(self.zooms) == k]
                if not chosen:
                    continue
                # a slice, not a list: nothing to copy to the device
                here = slice(chosen[0], chosen[-1] + 1, chosen[1] - chosen[0] if len(chosen) > 1 else 1)
                indices, offset = sampler.atlas_at(zoom).patches(self.centres[zoom][rows[here]], zoom, patch_px)
                seen, further = (windows.of(part).of(here) for windows in (wide, narrow))
                groups = [(seen.views(slice(half, half + 1)), px), (further.views(slice(half, None, 2)), local)]
                of_views = [half, *range(2 + half, 2 + views.n_local, 2)]
                own = palette if palette.ndim == 2 else palette[here][:, of_views]
                global_views[half, here], cuts = cut_in_colours(indices, offset, groups, own)
                if len(cuts):
                    local_views[half::2, here] = cuts.unflatten(0, (-1, len(chosen)))
        return sampler.described(rows, global_views.flatten(0, 1), local_views.flatten(0, 1), None)


def _empty(views: int, n: int, channels: int, px: int, device: torch.device) -> Tensor:
    """(views, n, channels, px, px), channels last in memory once the first two are one."""
    return torch.empty(views, n, px, px, channels, device=device).permute(0, 1, 4, 2, 3)
