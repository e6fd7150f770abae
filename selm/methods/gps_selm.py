"""GPS-SELM (section 3), and plain DINO, which is GPS-SELM with its auxiliary tasks switched off."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selm import distributed, losses
from selm.encoder import MapEncoder
from selm.heads import ProjectionHead, ReconstructionHead, border_mask, cluster_head, geo_head
from selm.methods.base import Method, feature_spread, frozen_copy, views_text
from selm.optimisation import Optimisation, cosine, linear_warmup, range_text
from selm.settings import Pretraining, Views
from selm.views import Batch


@dataclass(frozen=True)
class Terms:
    """Which of eq. 13's losses are on. DINO is the distillation alone."""

    distillation: bool = True
    price: bool = False
    density: bool = False
    coordinates: bool = False
    reconstruction: bool = False
    clustering: bool = False

    @property
    def geo(self) -> bool:
        return self.price or self.density or self.coordinates


GEO = Terms(price=True, density=True, coordinates=True)


class GPSSELM(Method):
    """Student and teacher over map views, with the auxiliary tasks that `terms` names.

    Decisions where the paper is silent or slips (see the book's page "decisions"): L_cl and L_clust are means over
    pairs; the teacher's logits are centred; z of eqs. 5-9 is the student's pooled feature of both global views,
    averaged over them; p_div is a moving mean of L2-normalised teacher features; student and teacher share the
    prototypes, which learn from the student alone.
    """

    centre: Tensor  # (K,) of the teacher's logits
    p_div: Tensor  # (cluster_out,) of eqs. 10 and 11
    border: Tensor  # (px, px), M̂ of eq. 9
    outer: Tensor  # (px, px)

    def __init__(self, encoder: MapEncoder, settings: Pretraining, terms: Terms, image_px: int):
        super().__init__()
        self.settings, self.terms = settings, terms
        self.encoder, dim = encoder, encoder.dim
        self.parent_share = settings.rec_share if terms.reconstruction else 0.0
        self.needs = tuple(name for name, on in (("price", terms.price), ("density", terms.density)) if on)
        if terms.distillation:
            self.head = ProjectionHead(dim, settings.out_dim, settings.head_hidden, settings.head_bottleneck)
            self.teacher_head = frozen_copy(self.head)
            self.register_buffer("centre", torch.zeros(settings.out_dim))
        if terms.price:
            self.price_head = geo_head(dim, settings.geo_hidden, 1)
        if terms.density:
            self.density_head = geo_head(dim, settings.geo_hidden, settings.density_classes)
        if terms.coordinates:
            self.coordinate_head = geo_head(dim, settings.geo_hidden, 2)
        if terms.reconstruction:
            self.reconstruction_head = ReconstructionHead(dim, image_px, settings.rec_channels, encoder.channels)
            self.register_buffer("border", border_mask(image_px, settings.rec_border_px), persistent=False)
            # what the view itself does not show: outside the central quarter (the zoom-17 image's own ground)
            self.register_buffer("outer", self.border * (1 - _central_quarter(image_px)), persistent=False)
        if terms.clustering:
            self.cluster_head = cluster_head(dim, settings.cluster_hidden, settings.cluster_out)
            self.teacher_cluster_head = frozen_copy(self.cluster_head)
            self.cluster_prototypes = nn.Parameter(torch.randn(settings.prototypes, settings.cluster_out))
            self.register_buffer("p_div", torch.zeros(settings.cluster_out))
        if terms.distillation or terms.clustering:
            self.teacher_encoder = frozen_copy(encoder)

    def train(self, mode: bool = True) -> GPSSELM:
        """As any module's; a teacher with moving statistics stays in evaluation mode."""
        super().train(mode)
        if hasattr(self, "teacher_encoder") and not self.settings.teacher_batch_statistics:
            self.teacher_encoder.eval()
        return self

    def optimisation(self) -> Optimisation:
        """AdamW with DINO's schedules (section 4)."""
        s = self.settings
        return Optimisation(
            "adamw", lr=s.lr * s.batch / 256, lr_min=s.lr_min, lr_warmup=s.lr_warmup, weight_decay=s.weight_decay,
            clip=s.clip,
        )  # fmt: skip

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        s, terms = self.settings, self.terms
        temperatures, heads = [], []
        if terms.distillation:
            temperatures.append(f"{s.student_temp:g}; {range_text(*s.teacher_temp)}")
            heads.append(f"{s.head_hidden}-{s.head_hidden}-{s.head_bottleneck}, K = {s.out_dim}")
        if terms.geo:
            heads.append(f"geo: {s.geo_hidden}")
        if terms.reconstruction:
            heads.append(f"3 transposed convolutions: {s.rec_channels}")
        if terms.clustering:
            temperatures.append(f"clusters {s.cluster_student_temp:g}; {range_text(*s.cluster_teacher_temp)}")
            heads.append(f"{s.cluster_hidden}-{s.cluster_hidden}-{s.cluster_out}, m = {s.prototypes}")
        taught = terms.distillation or terms.clustering
        return {
            "momentum": range_text(*s.teacher_momentum) if taught else "–",
            "temperatures": "; ".join(temperatures) or "–",
            "queue": "–",
            "heads": "; ".join(heads),
            "views": views_text(views if taught else dataclasses.replace(views, n_local=0)),
        }

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See `Method.loss`.

        Entries: loss, cl, price, density, coordinates, geo, rec, rec_outer, clust, and what tells of collapse.
        """
        s, terms = self.settings, self.terms
        out: dict[str, Tensor] = {}
        wide = self.encoder(batch.global_views)  # (2 B, dim)
        features = wide
        zero = wide.new_zeros((), dtype=torch.float32)
        cl = geo = rec = clust = zero
        taught = None
        if terms.distillation or terms.clustering:
            with torch.no_grad():
                # in train mode, normalised with the batch, as the reference DINO is (or see `train`)
                taught = self.teacher_encoder(batch.global_views)
            features = torch.cat([wide, self.encoder(batch.local_views)]) if len(batch.local_views) else wide
        if terms.distillation and taught is not None:
            cl = self._distill(features, taught, batch.size, progress, out)
        if terms.geo:
            geo = self._predict(wide, batch, out)
        if terms.reconstruction and batch.parents is not None:
            rebuilt = wide.view(2, batch.size, -1)[:, : len(batch.parents) // 2].flatten(0, 1)
            rec = self._reconstruct(rebuilt, batch.parents, out)
        if terms.clustering and taught is not None:
            clust = self._cluster(features, taught, batch.size, progress, out)
        out["loss"] = losses.total(cl, geo, rec, clust, s.alpha, s.beta, s.gamma)
        out["feature_spread"] = feature_spread(wide)
        return out

    def _distill(self, features: Tensor, taught: Tensor, size: int, progress: float, out: dict[str, Tensor]) -> Tensor:
        s = self.settings
        temperature = linear_warmup(*s.teacher_temp, progress, s.teacher_temp_warmup)
        student = self.head(features).view(-1, size, s.out_dim)
        with torch.no_grad():
            logits = self.teacher_head(taught).float().view(2, size, s.out_dim)
            teacher = losses.soft_assignment(
                logits, temperature, self.centre if s.centre_momentum is not None else None
            )
            self._next_centre = logits
            mean = distributed.mean(teacher.mean(dim=(0, 1)))
            out["teacher_entropy"] = losses.cross_entropy(teacher, teacher.clamp(min=1e-12).log()).mean()
            out["mean_teacher_entropy"] = losses.cross_entropy(mean, mean.clamp(min=1e-12).log())
        out["cl"] = losses.distillation(student, teacher, s.student_temp)
        return out["cl"]

    def _predict(self, wide: Tensor, batch: Batch, out: dict[str, Tensor]) -> Tensor:
        zero = wide.new_zeros((), dtype=torch.float32)
        price = density = coordinates = zero
        if self.terms.price:
            target = batch.price.repeat(2)
            price = losses.land_price(self.price_head(wide)[:, 0].float(), target)
            price = out["price"] = price * distributed.masked_share(target.isfinite())
        if self.terms.density:
            classes = batch.density_class.repeat(2)
            density = losses.density(self.density_head(wide), classes)
            density = out["density"] = density * distributed.masked_share(classes >= 0)
        if self.terms.coordinates:
            predicted = self.coordinate_head(wide).float()
            coordinates = out["coordinates"] = losses.coordinates(predicted, batch.coordinates.repeat(2, 1))
        out["geo"] = losses.geo(price, density, coordinates)
        return out["geo"]

    def _reconstruct(self, wide: Tensor, parents: Tensor, out: dict[str, Tensor]) -> Tensor:
        context = parents * (1 - self.border)
        error = losses.pixel_error(self.reconstruction_head(wide, context), parents)
        out["rec"] = losses.reconstruction(error, self.border)
        out["rec_outer"] = losses.reconstruction(error.detach(), self.outer)
        return out["rec"]

    def _cluster(self, features: Tensor, taught: Tensor, size: int, progress: float, out: dict[str, Tensor]) -> Tensor:
        s = self.settings
        temperature = linear_warmup(*s.cluster_teacher_temp, progress, s.teacher_temp_warmup)
        centre = self.p_div if s.cluster_centre_student else None
        student = losses.cluster_logits(self.cluster_head(features), self.cluster_prototypes, centre)
        with torch.no_grad():
            projected = F.normalize(self.teacher_cluster_head(taught).float(), dim=-1)
            logits = losses.cluster_logits(projected, self.cluster_prototypes, self.p_div)
            teacher = losses.soft_assignment(logits, temperature).view(2, size, -1)
            self._next_p_div = projected
            mean = distributed.mean(teacher.mean(dim=(0, 1)))
            out["mean_cluster_entropy"] = losses.cross_entropy(mean, mean.clamp(min=1e-12).log())
        out["clust"] = losses.distillation(student.view(-1, size, s.prototypes), teacher, s.cluster_student_temp)
        return out["clust"]

    def before_step(self, progress: float) -> None:
        """Keep DINO's last layer still in the first epoch."""
        if self.terms.distillation and progress < self.settings.freeze_last_layer:
            self.head.prototypes.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """θt ← λ θt + (1 − λ) θs for the parameters, not the BatchNorm statistics (unless the teacher uses them); then
        the centre and p_div."""
        s = self.settings
        keep = cosine(*s.teacher_momentum, progress)
        pairs = list(self._teacher_pairs())
        if pairs:
            torch._foreach_lerp_([t for t, _ in pairs], [p for _, p in pairs], 1 - keep)
        if pairs and not s.teacher_batch_statistics:
            followed = zip(self.teacher_encoder.buffers(), self.encoder.buffers(), strict=True)
            for t, own in followed:  # the number of batches seen is a whole number: it is copied
                t.lerp_(own, 1 - keep) if t.is_floating_point() else t.copy_(own)
        if self.terms.distillation and s.centre_momentum is not None:
            logits = distributed.batch_mean(self._next_centre)
            self.centre.copy_(losses.moving_average(self.centre, logits, s.centre_momentum))
        if self.terms.clustering:
            projected = distributed.batch_mean(self._next_p_div)
            self.p_div.copy_(losses.moving_average(self.p_div, projected, s.cluster_eta))

    def _teacher_pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        for teacher, student in (
            ("teacher_encoder", "encoder"),
            ("teacher_head", "head"),
            ("teacher_cluster_head", "cluster_head"),
        ):
            if hasattr(self, teacher):
                yield from zip(getattr(self, teacher).parameters(), getattr(self, student).parameters(), strict=True)

    def collapse(self, logged: dict[str, float]) -> str:
        """See `Method.collapse`: what the teacher's entropies and the features' spread say."""
        if "mean_teacher_entropy" in logged:
            limit = math.log(self.settings.out_dim)
            if logged["mean_teacher_entropy"] < 0.1 * limit:
                return "one output takes all"
            if logged["teacher_entropy"] > 0.98 * limit:
                return "teacher outputs are uniform"
        return super().collapse(logged)


def _central_quarter(px: int) -> Tensor:
    return F.pad(torch.ones(px // 2, px // 2), [px // 4] * 4)
