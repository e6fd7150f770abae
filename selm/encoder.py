"""Map image → embedding: a ResNet's pooled feature (section 4.2 of the paper)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from torch import Tensor, nn

from selm import checkpoints
from selm.errors import InputError, unknown
from selm.files import read_json, write_json

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

_RESNETS = {  # block of torchvision, and how many a stage
    "resnet18": ("BasicBlock", [2, 2, 2, 2]),
    "resnet34": ("BasicBlock", [3, 4, 6, 3]),
    "resnet50": ("Bottleneck", [3, 4, 6, 3]),
}
AnyModule = TypeVar("AnyModule", bound=nn.Module)
ORIENTATIONS = (1, 8)  # of an image, that a feature can be the mean of
STAGES = (1, 2, 3, 4)  # of a ResNet, fine to coarse


def resnet(arch: str, width: float = 1.0) -> ResNet:
    """torchvision's ResNet with every channel count multiplied by `width`, without its classifier.

    Raises InputError for an unknown `arch` (the nearest name is given).
    """
    if arch not in _RESNETS:
        raise unknown("encoder", arch, _RESNETS)
    base = 64 * width
    if base != int(base) or base < 1:
        raise InputError(f"encoder width {width}: 64 * width must be a whole number")
    from torchvision.models import resnet as torchvision_resnet  # over a second: not for those who build no network

    name, depths = _RESNETS[arch]
    block = getattr(torchvision_resnet, name)
    channels = int(base)
    network = torchvision_resnet.ResNet(block, depths)
    if channels != 64:
        # torchvision fixes the stem at 64 channels: build the stages again at the width asked for
        network.inplanes = channels
        network.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
        network.bn1 = nn.BatchNorm2d(channels)
        for stage, depth in enumerate(depths):
            layer = network._make_layer(block, channels * 2**stage, depth, stride=1 if stage == 0 else 2)
            setattr(network, f"layer{stage + 1}", layer)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is and which images it wants.

    `image_px` pixels a side, cut at web zoom `zoom` from an atlas with `tile_px` pixels a web tile, drawn in `style`;
    RGB in [0, 1], standardised with `pixel_mean` and `pixel_std`. Where `context_zooms` names further zooms, a
    coordinate's embedding is the features of its images at `zoom` and at each of these, side by side. With 8
    `orientations` a feature is the mean over the eight ways to lay the image (turned by quarters, mirrored or not).
    `stages` names those of the ResNet's four whose outputs, each averaged over the image, are the features of an image,
    side by side: the last alone, as the paper has it, or earlier ones too, which know less of shapes and more of
    texture and colour.
    """

    arch: str = "resnet50"
    width: float = 1.0
    zoom: int = 17
    image_px: int = 128
    tile_px: int = 128
    style: str = "selm"
    pixel_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    context_zooms: tuple[int, ...] = ()
    orientations: int = 1
    stages: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        if self.orientations not in ORIENTATIONS:
            raise InputError(f"orientations must be {' or '.join(map(str, ORIENTATIONS))}, not {self.orientations}")
        if not self.stages or self.stages != tuple(n for n in STAGES if n in self.stages):
            raise InputError(f"stages must be some of {', '.join(map(str, STAGES))}, in this order, not {self.stages}")

    @property
    def zooms(self) -> tuple[int, ...]:
        """All zooms of an embedding."""
        return (self.zoom, *self.context_zooms)


class MapEncoder(nn.Module, ModelHubMixin, library_name="selm", tags=["geospatial", "openstreetmap"]):
    """Map image → embedding: a ResNet's pooled feature (section 4.2 of the paper).

    Load one with ``MapEncoder.from_pretrained(folder_or_hub_id)``; ``save_pretrained`` and ``push_to_hub`` publish it.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.network = resnet(config.arch, config.width)
        expansion = self.network.layer1[0].expansion
        self.stage_dims = tuple(int(64 * config.width) * 2**n * expansion for n in range(len(STAGES)))
        self.dim = self.stage_dims[-1]

    @property
    def embedding_dim(self) -> int:
        """Length of what `embed` gives."""
        return sum(self.stage_dims[stage - 1] for stage in self.config.stages)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) standardised floats → (B, dim)."""
        return self.network(images)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, px, px) standardised floats → (B, embedding_dim): the features of the config's stages, averaged over
        its orientations. With the defaults, the same as `forward`."""
        if self.config.orientations == 1:
            return self._features(images)
        return torch.stack([self._features(laid(images, way)) for way in range(self.config.orientations)]).mean(dim=0)

    def _features(self, images: Tensor) -> Tensor:
        if self.config.stages == (STAGES[-1],):
            return self(images)
        net = self.network
        x, pooled = net.maxpool(net.relu(net.bn1(net.conv1(images)))), []
        for number, stage in zip(STAGES, (net.layer1, net.layer2, net.layer3, net.layer4), strict=True):
            x = stage(x)
            if number in self.config.stages:
                pooled.append(x.mean(dim=(2, 3)))
        return torch.cat(pooled, dim=1)

    def standardise(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] → the same, standardised as in training."""
        mean = images.new_tensor(self.config.pixel_mean)[:, None, None]
        std = images.new_tensor(self.config.pixel_std)[:, None, None]
        return (images - mean) / std

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> MapEncoder:
        """The encoder in a folder, or of a Hub id (owner/name), in evaluation mode; `options` as the Hub's.

        Raises InputError where there is neither, or what is there is cut short, altered or of another version.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir() and (name.startswith(".") or not re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
            raise InputError(f"{name}: no such folder, nor a Hub id (owner/name)")
        return super().from_pretrained(name, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        checkpoints.save_tensors(save_directory / "model.safetensors", self.state_dict())
        write_json(save_directory / "config.json", dataclasses.asdict(self.config))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None, cache_dir: Any, force_download: bool,
                         local_files_only: bool, token: Any, **_: Any) -> MapEncoder:  # fmt: skip
        if Path(model_id).is_dir():
            files = {name: Path(model_id) / name for name in ("config.json", "model.safetensors")}
        else:
            files = {
                name: Path(hf_hub_download(model_id, name, revision=revision, cache_dir=cache_dir, token=token,
                                           force_download=force_download, local_files_only=local_files_only))
                for name in ("config.json", "model.safetensors")
            }  # fmt: skip
        return cls.load(files["config.json"], files["model.safetensors"])

    @classmethod
    def load(cls, config_path: Path, weights_path: Path) -> MapEncoder:
        """Read a published encoder; raises InputError that names the file, and the field or tensor at fault."""
        raw = read_json(config_path)
        known = {field.name for field in dataclasses.fields(EncoderConfig)}
        if not isinstance(raw, dict) or not known <= set(raw):
            missing = sorted(known - set(raw)) if isinstance(raw, dict) else ["everything"]
            raise InputError(f"{config_path}: not an encoder's configuration (lacks {', '.join(missing)})")
        values: dict[str, Any] = {n: tuple(raw[n]) if isinstance(raw[n], list) else raw[n] for n in known}
        try:
            with torch.device("meta"):  # every weight is read: none needs to be drawn
                encoder = cls(EncoderConfig(**values)).to_empty(device="cpu")
        except InputError as error:
            raise InputError(f"{config_path}: {error}") from error
        tensors, _ = checkpoints.load_tensors(weights_path)
        checkpoints.load_into(encoder, tensors, weights_path)
        return encoder.eval()


def laid(images: Tensor, way: int) -> Tensor:
    """(B, C, px, px) images laid in one of the eight ways: turned by `way` quarters, from 4 on mirrored too."""
    images = torch.rot90(images, way % 4, dims=(2, 3))
    images = images.flip(3) if way >= 4 else images
    return images.contiguous(memory_format=torch.channels_last)


def channels_last(module: AnyModule) -> AnyModule:
    """`module` itself, its convolutions' weights laid out channels last: faster on GPUs' tensor cores and on CPUs."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs do not know it
    return module


def new_encoder(config: EncoderConfig, seed: int) -> MapEncoder:
    """A randomly initialised encoder; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MapEncoder(config)
