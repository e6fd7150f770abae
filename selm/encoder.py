"""Map image → embedding: a ResNet's pooled feature (section 4.2 of the paper)."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from selm import checkpoints
from selm.bundled import published
from selm.errors import InputError, unknown
from selm.files import write_json
from selm.maps.style import Style
from selm.settings import RESNETS, STAGES, EncoderConfig
from selm.views import colour

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def resnet(arch: str, width: float = 1.0, channels: int = 3, stem: int = 7) -> ResNet:
    """torchvision's ResNet with every channel count multiplied by `width`, without its classifier, for images of so
    many `channels`; `stem` is the side of the first convolution's kernel.

    Raises InputError for an unknown `arch` (the nearest name is given).
    """
    if arch not in RESNETS:
        raise unknown("encoder", arch, RESNETS)
    base = 64 * width
    if base != int(base) or base < 1:
        raise InputError(f"encoder width {width}: 64 * width must be a whole number")
    from torchvision.models import resnet as torchvision_resnet  # over a second: not for those who build no network

    depths, kernels = RESNETS[arch]
    block = torchvision_resnet.Bottleneck if len(kernels) == 3 else torchvision_resnet.BasicBlock
    inner = int(base)
    network = torchvision_resnet.ResNet(block, list(depths))
    if (inner, channels, stem) != (64, 3, 7):
        # torchvision fixes the stem: build it and the stages again as asked for
        network.inplanes = inner
        network.conv1 = nn.Conv2d(channels, inner, kernel_size=stem, stride=2, padding=stem // 2, bias=False)
        network.bn1 = nn.BatchNorm2d(inner)
        for stage, depth in enumerate(depths):
            layer = network._make_layer(block, inner * 2**stage, depth, stride=1 if stage == 0 else 2)
            setattr(network, f"layer{stage + 1}", layer)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network


class MapEncoder(nn.Module, ModelHubMixin, library_name="selm", tags=["geospatial", "openstreetmap"]):
    """Map image → embedding: a ResNet's pooled feature (section 4.2 of the paper).

    Load one with ``MapEncoder.from_pretrained(folder_or_hub_id)``; ``save_pretrained`` and ``push_to_hub`` publish it.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.channels = config.codes or 3
        self.network = resnet(config.arch, config.width, self.channels, config.stem)
        if config.codes:
            style = Style.named(config.style)
            self.register_buffer("palette", torch.tensor(style.palette))  # uint8 (256, 3)
            self.register_buffer("codes", torch.tensor(style.codes(config.codes)))  # what stands in place of it
        expansion = self.network.layer1[0].expansion
        self.stage_dims = tuple(int(64 * config.width) * 2**n * expansion for n in range(len(STAGES)))
        self.dim = self.stage_dims[-1]

    @property
    def embedding_dim(self) -> int:
        """Length of what `embed` gives."""
        return sum(self.stage_dims[stage - 1] for stage in self.config.stages)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, h, w) of `pixels`, or `standardise` where they are RGB → (B, dim)."""
        return self.network(images)

    def embed(self, images: Tensor) -> Tensor:
        """(B, channels, px, px) of `pixels` → (B, embedding_dim): the features of the config's stages, averaged over
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

    @torch.inference_mode()
    def features(self, indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Palette indices (B, px, px) of images and the palette (256, 3) → float32 (B, embedding_dim), on the device
        of the weights; on a GPU computed in bfloat16."""
        device = next(self.parameters()).device
        images = self.pixels(torch.from_numpy(indices).to(device), torch.from_numpy(palette).to(device))
        with torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext():
            return self.embed(images).float().cpu().numpy()

    def pixels(self, indices: Tensor, palette: Tensor) -> Tensor:
        """Palette indices (B, h, w) and the palette uint8 (256, 3) → (B, channels, h, w) float32: codes, or RGB as
        `standardise` gives it.

        Raises InputError where codes stand for another palette than this one.
        """
        if not self.config.codes:
            mean, std = (
                torch.tensor(v, device=palette.device) for v in (self.config.pixel_mean, self.config.pixel_std)
            )
            return colour(indices, (palette.float() / 255 - mean) / std)
        if not torch.equal(self.get_buffer("palette"), palette):
            raise InputError(self.config.other_palette)
        return colour(indices, self.get_buffer("codes"))

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return checkpoints.digest(self.state_dict())

    def standardise(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] → the same, standardised as in training."""
        mean, std = (images.new_tensor(x)[:, None, None] for x in (self.config.pixel_mean, self.config.pixel_std))
        return (images - mean) / std

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> MapEncoder:
        """The encoder in a folder, of a Hub id (owner/name) or that comes along, in evaluation mode; `options` as the
        Hub's.

        Raises InputError where there is none, or what is there is cut short, altered or of another version.
        """
        return cls.load(*published(pretrained_model_name_or_path, **options))

    def _save_pretrained(self, save_directory: Path) -> None:
        checkpoints.save_tensors(save_directory / "model.safetensors", self.state_dict())
        write_json(save_directory / "config.json", self.config.as_dict())

    @classmethod
    def load(cls, config: EncoderConfig, weights_path: Path) -> MapEncoder:
        """Read a published encoder, in evaluation mode; raises InputError that names the file and the tensor."""
        try:
            encoder = copy.deepcopy(_undrawn(config)).to_empty(device="cpu")
        except InputError as error:
            raise InputError(f"{weights_path.with_name('config.json')}: {error}") from error
        tensors, _ = checkpoints.load_tensors(weights_path)
        checkpoints.load_into(encoder, tensors, weights_path)
        return encoder.eval()


@lru_cache(maxsize=16)
def _undrawn(config: EncoderConfig) -> MapEncoder:
    """An encoder without memory for its weights, to be copied where all of them are read: none needs to be drawn."""
    with torch.device("meta"):
        return MapEncoder(config)


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
