"""MUGS (Zhou et al., arXiv 2203.14415): a place, its local group and its cluster, learnt together by a student."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selm import distributed, losses
from selm.encoder import MapEncoder
from selm.heads import PredictedHead, ProjectionHead, RelationBlock
from selm.methods.base import Method, feature_spread, follow, frozen_copy, push, queue_length, random_units, views_text
from selm.optimisation import Optimisation, cosine, range_text
from selm.settings import Pretraining, Views
from selm.views import Batch, ViewSampler, erased


@dataclass(frozen=True)
class MugsSettings:
    """Numbers of MUGS: the authors' recipe for 100 epochs (sail-sg/mugs), and by name where maps or short runs differ.

    Shared with DINO's row through the profile: batch, encoder, places, images seen, rotation and zoom of views, number
    of local crops (10 there), teacher's momentum (0.996 → 1 there too), outputs of the group head (65,536 there), and
    the heads' hidden width and output (2048 and 256 there too).
    """

    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # instance, local group, group; the loss is their mean
    temperature: float = 0.2  # of both InfoNCEs
    queue: int = 65_536  # of each InfoNCE, and of each memory
    queue_share: float = 0.25  # ours: a queue holds at most this share of the places
    neighbours: int = 8  # local_group_knn_top_n
    predictor_ratio: int = 2  # 4096 hidden units in the predictor, 2048 in the projector
    student_temp: float = 0.1  # group loss
    teacher_temp: float = 0.04  # group loss, constant over 100 epochs
    centre_momentum: float = 0.9
    global_area: tuple[float, float] = (0.25, 1.0)
    local_area: tuple[float, float] = (0.05, 0.25)
    strong_share: float = 0.5  # share of the student's views with strong augmentation
    erase_share: float = 0.25  # ours: of the strong augmentation, random erasing alone; RandAugment alters colours
    lr: float = 8e-4  # for batch 256; used as it is for the profile's batch, as DINO's 5e-4 is under japan-cpu
    lr_min: float = 1e-6
    lr_warmup: float = 0.10  # 10 of 100 epochs
    weight_decay: tuple[float, float] = (0.04, 0.2)
    clip: float = 3.0  # per parameter tensor
    freeze_last_layer: float = 0.01  # the first of 100 epochs


class Mugs(Method):
    """Student and teacher with three heads each.

    The teacher sees two weakly augmented global views, the student two others and the local ones. In place of a
    transformer's class and mean tokens stands the ResNet's pooled feature. Two slips of the authors' code are not
    followed: their weights divide the loss and never multiply it, and their memories' pointers advance twice.
    """

    centre: Tensor  # (out_dim,)
    instance_queue: Tensor  # (K, d) unit targets of the teacher
    instance_pointer: Tensor
    group_queue: Tensor  # (K, d), those of local groups
    group_pointer: Tensor
    memory: Tensor  # (K, dim) the student's features of weakly augmented first views
    memory_pointer: Tensor
    teacher_memory: Tensor  # (K, dim) the teacher's
    teacher_memory_pointer: Tensor

    def __init__(self, encoder: MapEncoder, pretraining: Pretraining, settings: MugsSettings, image_px: int):
        super().__init__()
        self.settings, self.pretraining = settings, pretraining
        hidden, out = pretraining.head_hidden, pretraining.head_bottleneck
        self.encoder, dim = encoder, encoder.dim
        self.relation = RelationBlock(dim)
        self.instance_head = PredictedHead(dim, hidden, out, settings.predictor_ratio * hidden)
        self.local_group_head = PredictedHead(dim, hidden, out, settings.predictor_ratio * hidden)
        self.group_head = ProjectionHead(dim, pretraining.out_dim, hidden, out)
        self.teacher_encoder = frozen_copy(self.encoder)
        self.teacher_relation = frozen_copy(self.relation)
        self.teacher_instance_projector = frozen_copy(self.instance_head.projector)
        self.teacher_local_group_projector = frozen_copy(self.local_group_head.projector)
        self.teacher_group_head = frozen_copy(self.group_head)
        length = queue_length(settings.queue, settings.queue_share, pretraining)
        for name, entries in (
            ("instance_queue", random_units(length, out)), ("group_queue", random_units(length, out)),
            ("memory", torch.randn(length, dim)), ("teacher_memory", torch.randn(length, dim)),
        ):  # fmt: skip
            self.register_buffer(name, entries)
            self.register_buffer(f"{name.removesuffix('_queue')}_pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(pretraining.out_dim))

    def optimisation(self) -> Optimisation:
        """AdamW with DINO's schedules and MUGS's rates."""
        s = self.settings
        return Optimisation(
            "adamw", lr=s.lr, lr_min=s.lr_min, lr_warmup=s.lr_warmup, weight_decay=s.weight_decay, clip=s.clip
        )

    def describe(self, views: Views) -> dict[str, str]:
        """See `Method.describe`."""
        s, p = self.settings, self.pretraining
        head = f"{p.head_hidden}-{p.head_hidden}-{p.head_bottleneck}"
        return {
            "momentum": range_text(*p.teacher_momentum),
            "temperatures": f"{s.temperature:g}; group {s.student_temp:g}; {s.teacher_temp:g}",
            "queue": f"4 × {len(self.memory):,}",
            "heads": f"2 × {head}, predictor {s.predictor_ratio * p.head_hidden}; {head}, K = {p.out_dim}",
            "views": f"{views_text(self._views(views))}; 2 of the teacher",
        }

    def _views(self, views: Views) -> Views:
        return dataclasses.replace(views, global_area=self.settings.global_area, local_area=self.settings.local_area)

    def draw(self, sampler: ViewSampler, n: int, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """global_views: two of the teacher, then two of the student; `weak` says which places' student views are weak.

        Weak is DINO's row's augmentation. Strong erases a rectangle of some views: per place for the two global ones,
        per view for local ones.
        """
        s = self.settings
        views = self._views(sampler.views)
        rows = sampler.draw_rows(n, generator)
        wide = dataclasses.replace(views, n_local=0)
        taught = sampler.batch(rows, generator, parent_share=0.0, part=part, views=wide)
        seen = sampler.batch(rows, generator, parent_share=0.0, part=part, views=views)
        count = 2 + views.n_local
        u = torch.rand(count, n, 6, generator=generator, device=generator.device)[:, part]
        strong, erase = u[..., 0] < s.strong_share, u[..., 1] < s.erase_share
        strong[1] = strong[0]
        noise = torch.randn(
            seen.global_views.shape[1], views.global_px, views.global_px, generator=generator, device=generator.device
        )
        chosen, rectangles = (strong & erase).flatten(), u[..., 2:].flatten(0, 1)
        k, small = 2 * seen.size, noise[:, : views.local_px, : views.local_px]
        student = erased(seen.global_views, chosen[:k], rectangles[:k], noise)
        return dataclasses.replace(
            seen,
            global_views=torch.cat([taught.global_views, student]),
            local_views=erased(seen.local_views, chosen[k:], rectangles[k:], small),
            weak=~strong[0],
        )

    def loss(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """See `Method.loss`. Entries: loss, instance, local_group, group, and what tells of collapse."""
        s, n = self.settings, batch.size
        with torch.no_grad():
            taught = self.teacher_encoder(batch.global_views[: 2 * n])
            related = self.teacher_relation(taught, nearest_in_memory(taught, self.teacher_memory, s.neighbours))
            instance_target = F.normalize(self.teacher_instance_projector(taught).float(), dim=-1).view(2, n, -1)
            local_target = F.normalize(self.teacher_local_group_projector(related).float(), dim=-1).view(2, n, -1)
            logits = self.teacher_group_head(taught).float().view(2, n, -1)
            teacher = losses.soft_assignment(logits, s.teacher_temp, self.centre)
        wide = self.encoder(batch.global_views[2 * n :])
        features = torch.cat([wide, self.encoder(batch.local_views)]) if len(batch.local_views) else wide
        group = self.relation(features, nearest_in_memory(features, self.memory, s.neighbours))
        out = {
            "instance": self._contrast(self.instance_head(features), instance_target, self.instance_queue),
            "local_group": self._contrast(self.local_group_head(group), local_target, self.group_queue),
            "group": losses.by_crop_size(
                losses.cross_entropies(self.group_head(features).view(-1, n, logits.shape[-1]), teacher,
                                            s.student_temp)
            ),
        }  # fmt: skip
        parts = zip(s.weights, (out["instance"], out["local_group"], out["group"]), strict=True)
        out["loss"] = torch.stack([weight * value for weight, value in parts]).sum() / sum(s.weights)
        with torch.no_grad():
            self._next = (instance_target, local_target, logits, wide[:n].detach(), batch.weak, taught[:n])
            mean = distributed.mean(teacher.mean(dim=(0, 1)))
            out["teacher_entropy"] = losses.cross_entropy(teacher, teacher.clamp(min=1e-12).log()).mean()
            out["mean_teacher_entropy"] = losses.cross_entropy(mean, mean.clamp(min=1e-12).log())
            out["feature_spread"] = feature_spread(wide)
        return out

    def _contrast(self, predicted: Tensor, target: Tensor, queue: Tensor) -> Tensor:
        """InfoNCE of each student view with each teacher view of another number."""
        views = predicted.view(1, -1, *target.shape[1:])
        each = losses.info_nce(views, target[:, None], queue, self.settings.temperature)
        return losses.by_crop_size(each.mean(dim=-1))

    def before_step(self, progress: float) -> None:
        """Keep the group head's last layer still in the first epoch."""
        if progress < self.settings.freeze_last_layer:
            self.group_head.prototypes.grad = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher, then queues, memories and centre, all with this step's values."""
        keep = cosine(*self.pretraining.teacher_momentum, progress)
        for slow, fast in (
            (self.teacher_encoder, self.encoder),
            (self.teacher_relation, self.relation),
            (self.teacher_instance_projector, self.instance_head.projector),
            (self.teacher_local_group_projector, self.local_group_head.projector),
            (self.teacher_group_head, self.group_head),
        ):
            follow(slow, fast, keep)
        instance, local, logits, first, weak, taught = self._next
        for view in range(2):
            push(self.instance_queue, self.instance_pointer, distributed.gather(instance[view]))
            push(self.group_queue, self.group_pointer, distributed.gather(local[view]))
        chosen = None if weak is None else distributed.gather(weak)
        push(self.memory, self.memory_pointer, distributed.gather(first), chosen)
        push(self.teacher_memory, self.teacher_memory_pointer, distributed.gather(taught))
        self.centre.copy_(
            losses.moving_average(self.centre, distributed.batch_mean(logits), self.settings.centre_momentum)
        )

    def collapse(self, logged: dict[str, float]) -> str:
        """See `Method.collapse`; the group head's teacher may fall to one output too."""
        if logged["mean_teacher_entropy"] < 0.1 * math.log(self.pretraining.out_dim):
            return "one output takes all"
        return super().collapse(logged)


@torch.no_grad()
def nearest_in_memory(features: Tensor, memory: Tensor, k: int) -> Tensor:
    """The k entries of a memory (K, d) that are nearest by cosine to each feature (N, d): (N, k, d)."""
    cosines = F.normalize(features.detach().float(), dim=-1) @ F.normalize(memory, dim=-1).T
    return memory[cosines.topk(min(k, len(memory)), dim=-1).indices]
