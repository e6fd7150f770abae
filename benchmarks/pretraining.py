"""Images a second in pretraining: ours against lightly's DINO and the reference DINO, on the same places.

    python -m benchmarks.pretraining --reference DINO [--profile demo] [--rounds 5] [--steps 3]

`pip install lightly` and `git clone https://github.com/facebookresearch/dino DINO` bring the peers; without them their
rows are left out, and a line says so. All use the same encoder, number and size of views, batch and device; each uses
its own views and its own way to load them, from images that are in memory already. Settings that only help the peers
are on: channels_last, the fused optimizer, and on a GPU bfloat16 (float16 in the reference, which has no other) and
one loader worker a processor. One image is one place: two global and all local views.

Rounds take turns. `share_of_limit` is the arithmetic of a step at this rate, as a share of what large matrix products
reach on the same machine (float32 on one core by processor time; bfloat16 on a GPU). Writes pretraining.csv, or
pretraining-PROFILE.csv with `--like PROFILE`: its encoder, views and heads on the same places.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.steps import Run, open_run, scaled, settings_of
from reproduction.computed import encoders
from reproduction.settings import Profile
from selm import distributed
from selm.encoder import EncoderConfig, MapEncoder, channels_last
from selm.views import ViewSampler, colour

OURS = {"dino": "ours, DINO", "gps_selm": "ours, GPS-SELM (five auxiliary losses)"}


class Places(Dataset[Any]):
    """The plain images of places as PIL images held in memory, through a transform: what the peers' loaders read."""

    def __init__(self, sampler: ViewSampler, transform: Callable[[Any], Any], n: int, labelled: bool) -> None:
        # wide enough that a crop of the peers' finds what one of ours would
        px = sampler.views.global_px
        rows = torch.arange(n) % len(sampler.centres)
        indices, _ = sampler.atlas.patches(sampler.centres[rows.to(sampler.centres.device)], sampler.zoom, px)
        rgb = (colour(indices, sampler.atlas.palette) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        self.images = [Image.fromarray(np.ascontiguousarray(image)) for image in rgb]
        self.transform, self.labelled = transform, labelled

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> Any:
        views = self.transform(self.images[at])
        return (views, 0) if self.labelled else views


def loader(places: Places, batch: int, workers: int, gpu: bool) -> Iterator[Any]:
    """Batches without end."""
    batches = DataLoader(
        places, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=gpu,
        persistent_workers=workers > 0,
        prefetch_factor=1 if workers else None,  # a round's steps must outnumber the batches that lie ready before it
    )  # fmt: skip
    while True:
        yield from batches


def encoder(config: EncoderConfig, device: torch.device) -> nn.Module:
    """The same network for everyone."""
    network: nn.Module = MapEncoder(config).network
    return channels_last(network.to(device))


# ------------------------------------------------------------------------------------------------------- lightly


def lightly(
    profile: Profile, sampler: ViewSampler, config: EncoderConfig, batch: int, steps: int, workers: int, plain: bool
) -> Callable[[], float]:
    """lightly's own example of DINO; with `plain`, its transform does what our views do: crops and rotations alone."""
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms.dino_transform import DINOTransform
    from lightly.utils.scheduler import cosine_schedule

    device, v, s = sampler.atlas.device, profile.views, settings_of(profile, batch)
    gpu = device.type == "cuda"
    transform = DINOTransform(
        global_crop_size=v.global_px, global_crop_scale=v.global_area, local_crop_size=v.local_px,
        local_crop_scale=v.local_area, n_local_views=v.n_local,
        **({"hf_prob": 0.0, "rr_prob": 1.0, "rr_degrees": v.rotation_degrees, "cj_prob": 0.0, "random_gray_scale": 0.0,
            "gaussian_blur": (0.0, 0.0, 0.0), "solarization_prob": 0.0} if plain else {}),
    )  # fmt: skip
    batches = loader(Places(sampler, transform, 8 * batch, labelled=False), batch, workers, gpu)

    class Dino(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = MapEncoder(config).dim
            shape = (width, s.head_hidden, s.head_bottleneck, s.out_dim)
            self.student_backbone, self.teacher_backbone = encoder(config, device), encoder(config, device)
            self.student_head = DINOProjectionHead(*shape, freeze_last_layer=1).to(device)
            self.teacher_head = DINOProjectionHead(*shape).to(device)
            deactivate_requires_grad(self.teacher_backbone)
            deactivate_requires_grad(self.teacher_head)

    model = Dino().train()
    criterion = DINOLoss(output_dim=s.out_dim, warmup_teacher_temp_epochs=5).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)

    def way() -> float:
        for _ in range(steps):
            views = [view.to(device, non_blocking=True) for view in next(batches)]
            momentum = cosine_schedule(5, 10, 0.996, 1)
            update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
            update_momentum(model.student_head, model.teacher_head, m=momentum)
            with torch.autocast("cuda", torch.bfloat16, enabled=gpu):
                with torch.no_grad():
                    teacher = [model.teacher_head(model.teacher_backbone(view).flatten(1)) for view in views[:2]]
                student = [model.student_head(model.student_backbone(view).flatten(1)) for view in views]
                loss = criterion(teacher, student, epoch=5)
            loss.backward()
            model.student_head.cancel_last_layer_gradients(current_epoch=5)
            optimizer.step()
            optimizer.zero_grad()
        if gpu:
            torch.cuda.synchronize()
        return float(steps * batch)

    return way


# ----------------------------------------------------------------------------------------------------- reference


@contextlib.contextmanager
def without_gpu(device: torch.device) -> Iterator[None]:
    """The reference moves everything to a GPU by name; on a CPU these words do nothing."""
    if device.type == "cuda":
        yield
        return
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda self, *_, **__: self),
        mock.patch.object(torch.cuda, "synchronize", lambda *_: None),
    ):
        yield


def reference(
    folder: Path, profile: Profile, sampler: ViewSampler, config: EncoderConfig, batch: int, steps: int, workers: int
) -> Callable[[], float]:
    """facebookresearch/dino: its transforms, wrapper, head, loss and its own `train_one_epoch`, called as it is."""
    sys.path.insert(0, str(folder))
    try:
        import main_dino
        import utils
        from vision_transformer import DINOHead
    finally:
        sys.path.remove(str(folder))
    device, v, s = sampler.atlas.device, profile.views, settings_of(profile, batch)
    gpu = device.type == "cuda"
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("nccl" if gpu else "gloo", store=store, rank=0, world_size=1)
    transform = main_dino.DataAugmentationDINO(v.global_area, v.local_area, v.n_local)
    for one, px in (
        (transform.global_transfo1, v.global_px), (transform.global_transfo2, v.global_px),
        (transform.local_transfo, v.local_px),
    ):  # fmt: skip
        one.transforms[0].size = (px, px)  # the reference writes 224 and 96 into its code
    places = Places(sampler, transform, 8 * batch, labelled=True)
    batches = loader(places, batch, workers, gpu)

    class Some:
        """`steps` batches, as a loader of that length."""

        dataset = places

        def __len__(self) -> int:
            return steps

        def __iter__(self) -> Iterator[Any]:
            return (next(batches) for _ in range(steps))

    def network() -> nn.Module:
        head = DINOHead(MapEncoder(config).dim, s.out_dim, hidden_dim=s.head_hidden, bottleneck_dim=s.head_bottleneck)
        return utils.MultiCropWrapper(encoder(config, device), head.to(device))

    student, teacher = network(), network()
    for parameter in teacher.parameters():
        parameter.requires_grad = False
    parallel = nn.parallel.DistributedDataParallel(student)
    criterion = main_dino.DINOLoss(s.out_dim, 2 + v.n_local, 0.04, 0.07, 1, 2).to(device)
    optimizer = torch.optim.AdamW(utils.get_params_groups(parallel), fused=True)
    schedule = np.full(2 * steps, 1e-4)
    scaler = torch.amp.GradScaler("cuda") if gpu else None
    arguments = SimpleNamespace(epochs=2, clip_grad=s.clip, freeze_last_layer=1)

    def way() -> float:
        with (
            without_gpu(device), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(),
            # alone there is nothing to gather, and it would be gathered on a GPU
            mock.patch.object(utils.MetricLogger, "synchronize_between_processes", lambda _: None),
        ):  # fmt: skip
            warnings.simplefilter("ignore", FutureWarning)  # the reference is of 2021
            main_dino.train_one_epoch(
                parallel, teacher, teacher, criterion, Some(), optimizer, schedule, schedule, schedule, 1, scaler,
                arguments,
            )  # fmt: skip
        return float(steps * batch)

    return way


# ---------------------------------------------------------------------------------------------------------- all


def peers(
    folder: Path | None,
    profile: Profile,
    sampler: ViewSampler,
    config: EncoderConfig,
    batch: int,
    steps: int,
    workers: int,
) -> dict[str, Callable[[], float]]:
    """The peers that are here; a line for each that is not."""
    out: dict[str, Callable[[], float]] = {}
    try:
        import lightly as peer

        name = f"lightly {peer.__version__}"
        for title, simple in ((f"{name}, its own transform", False), (f"{name}, crops and rotations alone", True)):
            out[title] = lightly(profile, sampler, config, batch, steps, workers, simple)
    except ImportError:
        print("lightly is not installed (pip install lightly): its rows are left out", file=sys.stderr)
    if folder is not None and (folder / "main_dino.py").exists():
        out["reference DINO"] = reference(folder, profile, sampler, config, batch, steps, workers)
    else:
        print("no --reference (a checkout of facebookresearch/dino): its row is left out", file=sys.stderr)
    return out


def flops_an_image(run: Run) -> float:
    """Floating-point operations of one step (forward, backward and teacher) for each place, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        run.steps(1)
    return counter.get_total_flops() / run.batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo", help="whose encoder, views and places")
    parser.add_argument("--like", metavar="PROFILE", help="encoder, views and heads of this profile instead")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="a checkout of facebookresearch/dino")
    parser.add_argument("--batch", type=int, help="by default the profile's")
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="the peers' loader workers; by default 0 on a CPU, all on a GPU")
    parser.add_argument("--compile", metavar="MODE", help="also ours with torch.compile")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    measure.options(parser)
    chosen = parser.parse_args()
    profile, device = scaled(chosen.profile, chosen.like), distributed.device()
    gpu = device.type == "cuda"
    workers = chosen.workers if chosen.workers is not None else (os.cpu_count() or 1) * gpu
    torch.backends.cudnn.benchmark = gpu
    runs = {title: open_run(profile, method, batch=chosen.batch) for method, title in OURS.items()}
    if chosen.compile:
        for method, title in OURS.items():
            runs[f"{title}, compiled"] = open_run(profile, method, batch=chosen.batch, compiled=chosen.compile)
    batch = next(iter(runs.values())).batch
    flops = {title: flops_an_image(run) for title, run in runs.items() if not title.endswith("compiled")}
    flops |= {f"{title}, compiled": count for title, count in list(flops.items())}
    plain = flops[OURS["dino"]]
    tried: dict[str, Callable[[], float]] = {
        title: (lambda run=run: run.steps(chosen.steps)) for title, run in runs.items()
    }
    sampler, config = encoders.sampler(profile), encoders.encoder_config(profile)
    if not chosen.no_peers:
        tried |= peers(chosen.reference, profile, sampler, config, batch, chosen.steps, workers)
    rates = measure.interleaved(tried, chosen.rounds, OURS["dino"])
    peak = measure.matrix_flops(device.type)
    rows = []
    for title, rate in rates.items():
        arithmetic = flops.get(title, plain)  # the peers do what our DINO does
        limit = peak / arithmetic
        rows.append({
            "way": title, "images_per_s": rate.wall, "images_per_cpu_s": rate.cpu, "ratio": rate.wall_ratio,
            "cpu_ratio": rate.cpu_ratio, "least": rate.low, "greatest": rate.high, "gflop_an_image": arithmetic / 1e9,
            "limit_images_per_s": limit, "share_of_limit": (rate.wall if gpu else rate.cpu) / limit,
        })  # fmt: skip
    name = f"pretraining-{chosen.like}" if chosen.like else "pretraining"
    measure.report(
        name, rows, chosen, profile=chosen.profile, encoder=f"{config.arch} x{config.width:g}",
        px=profile.views.global_px, batch=batch, workers=workers, rounds=chosen.rounds,
        matrix_gflops=round(peak / 1e9, 1), data=chosen.profile,
    )  # fmt: skip
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
