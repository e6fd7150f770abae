"""The one training loop, for every method.

A run directory holds `run.json` (what was asked for, and provenance), `metrics.csv`, `config.json` and
`model.safetensors` (the encoder, as `MapEncoder.from_pretrained` reads it) and `state/` (the last checkpoint). A run
killed at any moment goes on from its last checkpoint; since every step draws its randomness from (seed, step) alone,
on a CPU it ends with the same weights, bit for bit. Several processes share a global batch (`selm.distributed`); the
main one writes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import shutil
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from selm import checkpoints, distributed, files
from selm.encoder import channels_last
from selm.errors import InputError
from selm.methods.base import Places, Seen, Trainable
from selm.provenance import provenance
from selm.settings import Pretraining


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The randomness of one step, independent of every other step's."""
    generator = torch.Generator(device)
    # the CPU's generator takes the lowest 32 bits of a seed and no more; the factor keeps runs of seeds below 100
    # more than twenty million steps apart
    generator.manual_seed((seed * 2_654_435_761 + step) % 2**32)
    return generator


def parameter_groups(method: Trainable[Any, Any]) -> list[dict[str, Any]]:
    """What is trained, in two groups: weights that decay, and biases and other 1-d parameters that do not (DINO)."""
    trained = [p for p in method.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False, "weight_decay": 0.0},
    ]


@torch.no_grad()
def clip_each(gradients: list[Tensor], limit: float) -> None:
    """Scale every gradient tensor by itself to a norm of at most `limit` (DINO), without a synchronisation."""
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms])


class Trainer(Generic[Places, Seen]):
    """A method, its optimizer and the step it has reached. `sampler` is what the method draws its batches from.

    Where several processes have joined, `settings.batch` is that of all together and must be a multiple of their
    number (else InputError). `compiled` names a mode of `torch.compile` for encoders and heads (``default``,
    ``max-autotune-no-cudagraphs``, ``reduce-overhead``); the numbers then differ by rounding.
    """

    def __init__(
        self, method: Trainable[Places, Seen], sampler: Places, settings: Pretraining, seed: int,
        device: torch.device, *, compiled: str | None = None,
    ):  # fmt: skip
        self.part = distributed.part(settings.batch)
        method.prepare(sampler)
        self.method = channels_last(method.to(device).train())
        distributed.synchronise_norms(self.method, device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes stay the same: let it try which algorithm is fastest
        self.compiled = compiled
        if compiled is not None:
            for child in self.method.children():
                child.compile(mode=compiled, dynamic=False)
        self.loss: torch.nn.Module = self.method
        if distributed.size() > 1:  # averages gradients while the backward pass still runs
            self.loss = DistributedDataParallel(self.method, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.sampler, self.settings, self.seed, self.device = sampler, settings, seed, device
        self.steps = max(1, settings.images // settings.batch)
        self.step = 0
        self.optimisation = method.optimisation()
        self.optimizer = self.optimisation.make(parameter_groups(method), device)

    def train_step(self) -> dict[str, Tensor]:
        """One step; returns the method's losses and diagnostics as tensors on the device."""
        s, progress = self.settings, self.step / self.steps
        self.optimisation.schedule(self.optimizer, progress)
        generator = step_generator(self.seed, self.step, self.device)
        batch = self.method.draw(self.sampler, s.batch, generator, self.part)
        autocast = torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        with autocast:
            out = self.loss(batch, progress)
        out["loss"].backward()
        self.method.before_step(progress)
        if self.optimisation.clip is not None:
            clip_each([p.grad for p in self.method.parameters() if p.grad is not None], self.optimisation.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(progress)
        self.step += 1
        return {name: value.detach() for name, value in out.items()}

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.method.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs besides its configuration, as tensors."""
        tensors = {f"method.{name}": value for name, value in self.method.state_dict().items()}
        for name, parameter in self._trained().items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}|{key}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor], step: int, path: Path) -> None:
        """Take up `state()` again at `step`; raises InputError where it does not fit this method."""
        own = {name.removeprefix("method."): v for name, v in tensors.items() if name.startswith("method.")}
        checkpoints.load_into(self.method, own, path)
        trained = self._trained()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                parameter, _, key = name.removeprefix("optimizer.").rpartition("|")
                own_parameter = trained[parameter]
                # laid out as the parameter is: fused AdamW walks through the memory of both side by side
                moment = torch.empty_like(own_parameter) if value.ndim else value.new_empty((), device=self.device)
                self.optimizer.state[own_parameter][key] = moment.copy_(value)
        self.step = step


def pretrain(
    trainer: Trainer[Any, Any],
    folder: str | Path,
    config: dict[str, Any],
    *,
    progress: bool = True,
    title: str = "pretraining",
    stop_after: int | None = None,
) -> Path:
    """Train to the end, or on to the end from the last checkpoint in `folder`; returns `folder`.

    `config` is what the run is made from, JSON-like; it is kept in `run.json`, and a folder of another configuration
    is refused with InputError. `stop_after` ends the call early after so many steps without finishing (tests).
    """
    folder = Path(folder)
    main = distributed.is_main()
    config = json.loads(json.dumps(config))
    run_file, state_file = folder / "run.json", folder / "state" / "last.safetensors"
    run: dict[str, Any] = {"config": config, "complete": False}
    if run_file.exists():
        run = files.read_json(run_file)
        if run.get("config") != config:
            raise InputError(f"{run_file}: belongs to another configuration; remove the folder or choose another")
        if run["complete"]:
            return folder
    rows: list[dict[str, float | str]] = []
    if state_file.exists():
        tensors, meta = checkpoints.load_tensors(state_file)
        trainer.restore(tensors, int(meta["step"]), state_file)
        rows = _read_metrics(folder / "metrics.csv", trainer.step)
    run |= {**provenance(trainer.device), "steps": trainer.steps, "processes": distributed.size()}
    if trainer.compiled is not None:
        run["compiled"] = trainer.compiled
    if main:
        files.write_json(run_file, run)

    settings = trainer.settings
    sums: dict[str, Tensor] = {}
    counted, started = 0, time.perf_counter()
    silent = not (progress and main)
    bar = tqdm(total=trainer.steps, initial=trainer.step, desc=title, unit="step", disable=silent)
    seconds = float(rows[-1]["seconds"]) if rows else 0.0
    done = 0
    with bar, checkpoints.Writer() as writer:
        while trainer.step < trainer.steps:
            out = trainer.train_step()
            for name, value in out.items():
                sums[name] = sums[name] + value if name in sums else value.clone()
            counted += 1
            done += 1
            bar.update()
            last = trainer.step == trainer.steps
            save = trainer.step % settings.checkpoint_every == 0
            if trainer.step % settings.log_every == 0 or save or last:
                # the only place that waits for the device: once a row, for all its numbers together
                totals = distributed.mean(torch.stack([value.float() for value in sums.values()])).tolist()
                means = {name: total / counted for name, total in zip(sums, totals, strict=True)}
                seconds += time.perf_counter() - started
                started = time.perf_counter()
                word = trainer.method.collapse(means)
                rows.append({"step": trainer.step, **means, "collapse": word, "seconds": round(seconds, 3)})
                bar.set_postfix(loss=f"{means['loss']:.3f}", **({"collapsed": word} if word else {}))
                sums, counted = {}, 0
                if not math.isfinite(means["loss"]):
                    at = f"at step {trainer.step}"
                    raise InputError(f"{folder}: the loss is not finite {at}; lower the learning rate")
            if save and not last and main:
                # metrics first: rows beyond the checkpoint's step are dropped on resuming
                _write_metrics(folder / "metrics.csv", rows)
                writer.save(state_file, trainer.state(), {"step": str(trainer.step)})
            if stop_after is not None and done >= stop_after:
                return folder
    if not main:
        return folder
    _write_metrics(folder / "metrics.csv", rows)
    trainer.method.encoder.eval()
    trainer.method.encoder.save_pretrained(folder)
    checkpoints.save_tensors(folder / "method.safetensors", trainer.method.state_dict())
    run |= {"complete": True, "seconds": round(seconds, 1), "images": trainer.steps * settings.batch}
    files.write_json(run_file, run)
    shutil.rmtree(folder / "state", ignore_errors=True)
    return folder


def _write_metrics(path: Path, rows: Iterable[dict[str, float | str]]) -> None:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _read_metrics(path: Path, step: int) -> list[dict[str, float | str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        rows = [{k: v if k == "collapse" else float(v) for k, v in row.items()} for row in csv.DictReader(handle)]
    return [{**row, "step": int(row["step"])} for row in rows if float(row["step"]) <= step]


def as_config(*parts: Any) -> dict[str, Any]:
    """Dataclasses and dicts → one JSON-like dict."""
    out: dict[str, Any] = {}
    for part in parts:
        out |= dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part
    return out
