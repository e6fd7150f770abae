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
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from selm import checkpoints, distributed, files, methods
from selm.encoder import EncoderConfig, MapEncoder, channels_last, new_encoder
from selm.errors import InputError, first_line
from selm.files import cache_folder
from selm.maps.atlas import Atlas
from selm.maps.entropy import entropy_at, priorities
from selm.maps.mercator import check_coordinates
from selm.methods.base import Places, Seen, Trainable
from selm.provenance import provenance
from selm.settings import SMALL, Pretraining, Recolouring, Views
from selm.views import DeviceAtlas, ViewSampler, blocks_near, pixel_statistics, scaled_coordinates

PARENT_STEP = 1  # the parent image is one zoom out (section 4: zooms 17 and 16)
SMALL_ENCODER = EncoderConfig("resnet18", 0.25, image_px=64, tile_px=64)  # ours: what a CPU can train


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
            shutil.rmtree(state_file.parent, ignore_errors=True)  # killed between the last two steps
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


# From a table of places to a run


def view_sampler(
    atlas: DeviceAtlas, places: pd.DataFrame, encoder: EncoderConfig, views: Views, settings: Pretraining,
    further: Mapping[int, DeviceAtlas] | None = None, recolouring: Recolouring | None = None,
) -> ViewSampler:  # fmt: skip
    """Views of the places of a table: columns `lat lon price density_class entropy` (NaN and −1: unknown).

    `atlas` holds the encoder's zoom and its parent's; `further` maps at zooms that it has not. Raises InputError where
    colours are to be changed, or codes stand for them, and the map was drawn in others than those of the encoder's
    style.
    """
    mixtures, codes = None, None
    if recolouring is not None or encoder.codes:
        from selm.maps.style import Style

        style = Style.named(encoder.style)
        if not np.array_equal(style.palette, (255 * atlas.palette).round().byte().cpu().numpy()):
            raise InputError(
                f"the map is not drawn in today's colours of style {style.name}, which are to be changed or coded"
            )
        mixtures, codes = style.mixtures, style.codes(encoder.codes) if encoder.codes else None
    lat, lon = places["lat"].to_numpy(np.float64), places["lon"].to_numpy(np.float64)
    return ViewSampler(
        atlas, lat, lon, views, zoom=encoder.zoom, parent_zoom=encoder.zoom - PARENT_STEP, price=places["price"],
        density_class=places["density_class"], coordinates=scaled_coordinates(lat, lon),
        priorities=priorities(places["entropy"].to_numpy(), settings.alpha_priority, settings.epsilon_priority),
        pixel_mean=encoder.pixel_mean, pixel_std=encoder.pixel_std, further=further, recolouring=recolouring,
        mixtures=mixtures, codes=codes,
    )  # fmt: skip


def make_trainer(
    method: str, encoder: EncoderConfig, sampler: ViewSampler, settings: Pretraining, seed: int, device: torch.device,
    *, own: Any = None, compiled: str | None = None,
) -> Trainer[Any, Any]:  # fmt: skip
    """A method by name around a new encoder; encoder and heads are drawn from `seed`.

    `own` takes the place of the method's own settings; `compiled` as in `Trainer`.
    """
    zooms = methods.get_method(method).zooms
    zoom = zooms[0] if zooms else encoder.zoom
    made = new_encoder(dataclasses.replace(encoder, zoom=zoom, context_zooms=zooms[1:]), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the heads
        built = methods.build(method, made, settings, encoder.image_px, own)
    return Trainer(built, sampler, settings, seed, device, compiled=compiled)


def fit(
    method: str,
    map: str | Path | Atlas,
    places: pd.DataFrame,
    folder: str | Path,
    *,
    encoder: EncoderConfig = SMALL_ENCODER,
    views: Views | None = None,
    recolouring: Recolouring | None = None,
    settings: Pretraining = SMALL,
    seed: int = 0,
    device: str | torch.device | None = None,
    compiled: str | None = None,
    progress: bool = True,
) -> Path:
    """Pretrain a method on places of one's own, or go on where it was stopped; returns the run directory.

    `places` has columns `lat` and `lon` (degrees) and, for methods that learn from them, `price` (a positive quantity,
    whose logarithm is standardised; eq. 5) and `density` (0 or more, cut into classes by k-means; eq. 6); values may be
    missing. `map` is an atlas, or a map source of which the blocks around the places are drawn. The pixel statistics of
    `encoder` are those of the places' images. Raises InputError for an unknown method, a column that it needs, bad
    values, places outside the map, and a folder of another run.
    """
    recipe = methods.get_method(method)
    views = views or Views(global_px=encoder.image_px, local_px=encoder.image_px // 2)
    if views.global_px != encoder.image_px:
        raise InputError(f"views of {views.global_px} px for an encoder of images of {encoder.image_px} px")
    settings = dataclasses.replace(settings, n_places=len(places))
    with torch.device("meta"):
        needed = methods.build(method, MapEncoder(encoder), settings, encoder.image_px).needs
    table = _checked_places(places, method, needed, settings.density_classes)
    zooms = tuple(dict.fromkeys((encoder.zoom, encoder.zoom - PARENT_STEP, *recipe.zooms)))
    on = distributed.device(device)
    with distributed.main_first():
        atlas = _atlas_around(map, table, encoder, zooms, progress)
        lat, lon = table["lat"].to_numpy(), table["lon"].to_numpy()
        outside = np.flatnonzero(~atlas.covers(lat, lon))
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"{len(outside)} of {len(table)} places lie outside the map; the first is row {row + 1} "
                f"({lat[row]:g}, {lon[row]:g})"
            )
        table["entropy"] = entropy_at(atlas, lat, lon, zoom=encoder.zoom, size=encoder.image_px)
        some = torch.from_numpy(atlas.indices(lat[:20_000], lon[:20_000], encoder.zoom, encoder.image_px))
        mean, std = pixel_statistics(some, torch.tensor(atlas.palette, dtype=torch.float32) / 255)
    encoder = dataclasses.replace(
        encoder, style=atlas.style, pixel_mean=tuple(round(m, 6) for m in mean),
        pixel_std=tuple(round(max(s, 1e-3), 6) for s in std),
    )  # fmt: skip
    config = {
        "method": method, "settings": dataclasses.asdict(recipe.settings), "version": recipe.version, "seed": seed,
        "encoder": encoder.as_dict(), "views": dataclasses.asdict(views),
        "pretraining": dataclasses.asdict(settings), "map": atlas.fingerprint, "device": on.type,
        "places": hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest(),
        **({} if recolouring is None else {"recolouring": dataclasses.asdict(recolouring)}),
    }  # fmt: skip
    loaded = DeviceAtlas([atlas], zooms, on, near=(lat, lon), image_px=encoder.image_px)
    sampler = view_sampler(loaded, table, encoder, views, settings, recolouring=recolouring)
    trainer = make_trainer(method, encoder, sampler, settings, seed, on, compiled=compiled)
    return pretrain(trainer, folder, config, progress=progress, title=f"{method} (seed {seed})")


def _checked_places(places: pd.DataFrame, method: str, needed: tuple[str, ...], classes: int) -> pd.DataFrame:
    """Columns `lat lon price density_class`, checked."""
    for name in ("lat", "lon", *needed):
        if name not in places:
            raise InputError(f"{method} learns from the column '{name}', which the table of places has not")
    if not len(places):
        raise InputError("the table of places is empty")
    try:
        lat, lon = (places[name].to_numpy(np.float64) for name in ("lat", "lon"))
    except (TypeError, ValueError) as error:
        raise InputError(f"columns lat and lon must be degrees as numbers ({first_line(error)})") from None
    check_coordinates(lat, lon)
    out = pd.DataFrame({"lat": lat, "lon": lon, "price": np.float32(np.nan), "density_class": -1})
    if "price" in needed:
        price = _numbers(places["price"], 1e-300)
        log = np.log(price)
        spread = float(np.nanstd(log)) if np.isfinite(log).any() else 0.0
        out["price"] = ((log - np.nanmean(log)) / spread if spread else np.full(len(out), np.nan)).astype(np.float32)
    if "density" in needed:
        from sklearn.cluster import KMeans

        density = _numbers(places["density"], 0.0)
        known = np.flatnonzero(np.isfinite(density))
        values = np.log1p(density[known])[:, None]
        count = min(classes, len(np.unique(values)))
        if count:
            out.loc[known, "density_class"] = KMeans(count, n_init=1, random_state=0).fit_predict(values)
    for name, known_ in (("price", out["price"].notna()), ("density", out["density_class"] >= 0)):
        if name in needed and not known_.any():
            raise InputError(f"{method} learns from the column '{name}', which has no two different values")
    return out


def _numbers(column: pd.Series, least: float) -> NDArray[np.float64]:
    """A column as float64, NaN where it is empty; InputError for text, and for less than `least`."""
    values = pd.to_numeric(column.replace("", np.nan), errors="coerce").to_numpy(np.float64)
    given = column.notna().to_numpy() & (column.astype(str).str.strip() != "").to_numpy()
    for row in np.flatnonzero((given & ~np.isfinite(values)) | (values < least)):
        what = "is too small" if np.isfinite(values[row]) else "is no number"
        raise InputError(f"row {row + 1}, column {column.name}: '{column.iloc[row]}' {what}")
    return values


def _atlas_around(
    map: str | Path | Atlas, places: pd.DataFrame, encoder: EncoderConfig, zooms: tuple[int, ...], progress: bool
) -> Atlas:
    """The atlas that is given, or one of the source's blocks around the places, drawn into the cache."""
    if not isinstance(map, Atlas) and Path(map).is_dir():
        map = Atlas(map)
    if isinstance(map, Atlas):
        lacking = [zoom for zoom in zooms if zoom not in map.zooms]
        if lacking or map.tile_px != encoder.tile_px:
            wants = f"zooms {', '.join(str(zoom) for zoom in zooms)} and {encoder.tile_px} pixels a tile"
            raise InputError(f"{map.path}: pretraining needs {wants}; the atlas has {map.zooms} and {map.tile_px}")
        return map
    from selm.maps.draw import draw_atlas  # Mapnik: only where something is drawn
    from selm.maps.sources import open_source
    from selm.maps.style import Style

    source = open_source(map)
    blocks = blocks_near(source.tiles.has, places["lat"], places["lon"], zooms, encoder.image_px / encoder.tile_px)
    if not len(blocks):
        raise InputError(f"{source.name}: none of the places lies on the map")
    style, drawn = Style.named(encoder.style), "-".join(str(zoom) for zoom in zooms)
    identity = f"{source.fingerprint} {style.hash} {blocks.tolist()}"
    name = f"{style.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}-{encoder.tile_px}px-z{drawn}"
    return draw_atlas(
        source, cache_folder() / "atlases" / name, zooms=zooms, tile_px=encoder.tile_px, style=encoder.style,
        blocks=blocks, progress=progress,
    )  # fmt: skip
