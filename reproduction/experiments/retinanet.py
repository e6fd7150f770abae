"""Object detection with a pretrained encoder: torchvision's RetinaNet around it, scored by AP50 (Table 4).

The protocol is that of Ayush et al. 2021 (arXiv 2011.09980), which the paper follows: RetinaNet, trained whole by Adam.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from selm.encoder import MapEncoder
from selm.errors import InputError

if TYPE_CHECKING:
    from torchvision.models.detection import RetinaNet

_STAGES = ("layer2", "layer3", "layer4")  # strides 8, 16 and 32: P3 to P5 of the pyramid
CLIP = 1.0  # norm of the gradient; ours: a fresh head on a small batch takes wild first steps
WARMUP = 0.1  # share of the steps in which the learning rate rises; ours
MAX_DETECTIONS = 100  # an image, as COCO scores them


@dataclass(frozen=True)
class Objects:
    """What is in one image: boxes float32 (n, 4) as x0 y0 x1 y1 in pixels, labels int64 (n,), scores float32 (n,)."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None


def detector(
    encoder: MapEncoder, n_classes: int, *, px: int, mean: Sequence[float], std: Sequence[float],
    fpn_channels: int = 256,
) -> RetinaNet:  # fmt: skip
    """RetinaNet on a feature pyramid over the encoder's ResNet, which it takes over and trains.

    Images are `px` a side, RGB in [0, 1], and standardised with `mean` and `std`. The encoder may be of any width; its
    BatchNorm goes on learning. Heads start from torch's random state.
    """
    # over a second: not for every page that names Table 4
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    network = encoder.network
    channels = [_out_channels(getattr(network, stage)[-1]) for stage in _STAGES]
    backbone = BackboneWithFPN(
        network, {stage: str(i) for i, stage in enumerate(_STAGES)}, channels, fpn_channels,
        extra_blocks=LastLevelP6P7(fpn_channels, fpn_channels),
    )  # fmt: skip
    return RetinaNet(
        backbone, n_classes, min_size=px, max_size=px, image_mean=list(mean), image_std=list(std),
        detections_per_img=MAX_DETECTIONS,
    )  # fmt: skip


def _out_channels(block: torch.nn.Module) -> int:
    last = block.conv3 if hasattr(block, "conv3") else block.conv2  # Bottleneck or BasicBlock
    return int(last.out_channels)  # type: ignore[union-attr, arg-type]


def train(
    model: RetinaNet, images: Tensor, truth: Sequence[Objects], *, epochs: int, batch: int = 4, lr: float = 1e-5,
    seed: int = 0, device: str | torch.device = "cpu", progress: bool = False,
) -> list[float]:  # fmt: skip
    """Train with Adam on uint8 images (N, 3, px, px) and their objects; returns the mean loss of each epoch.

    Images are mirrored at random along both axes: from above there is no right way up.
    """
    if len(images) != len(truth):
        raise InputError(f"detection: {len(images)} images, but objects of {len(truth)}")
    if not any(len(objects.boxes) for objects in truth):
        raise InputError("detection: no image holds an object to learn from")
    generator = torch.Generator().manual_seed(seed)
    model = model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * -(-len(images) // batch)
    warm = max(1, round(WARMUP * steps))
    losses, step = [], 0
    with tqdm(total=steps, desc="detector", disable=not progress, leave=False) as bar:
        for _ in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(images), generator=generator).split(batch):
                mirrored = torch.rand(len(rows), 2, generator=generator) < 0.5
                inputs, targets = [], []
                for row, (across, down) in zip(rows.tolist(), mirrored.tolist(), strict=True):
                    image, boxes = mirror(images[row], torch.from_numpy(truth[row].boxes), across, down)
                    inputs.append(image.to(device).float() / 255)
                    targets.append({"boxes": boxes.to(device), "labels": torch.as_tensor(truth[row].labels).to(device)})
                for group in optimizer.param_groups:
                    group["lr"] = lr * min(1.0, (step + 1) / warm)
                loss = sum(model(inputs, targets).values())
                assert isinstance(loss, Tensor)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                total, step = total + float(loss.detach()) * len(rows), step + 1
                bar.update()
            losses.append(total / len(images))
    return losses


def mirror(image: Tensor, boxes: Tensor, across: bool, down: bool) -> tuple[Tensor, Tensor]:
    """An image (3, h, w) and its boxes (n, 4), mirrored left to right (`across`) and top to bottom (`down`)."""
    height, width = image.shape[-2:]
    if across:
        image = image.flip(-1)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    if down:
        image = image.flip(-2)
        boxes = torch.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], dim=1)
    return image, boxes


@torch.no_grad()
def detect(model: RetinaNet, images: Tensor, *, batch: int = 4, device: str | torch.device = "cpu") -> list[Objects]:
    """The objects found in uint8 images (N, 3, px, px), at most `MAX_DETECTIONS` an image, best first."""
    model = model.to(device).eval()
    out = []
    for part in images.split(batch):
        for found in model([image.to(device).float() / 255 for image in part]):
            out.append(Objects(found["boxes"].cpu().numpy().astype(np.float32),
                               found["labels"].cpu().numpy().astype(np.int64),
                               found["scores"].cpu().numpy().astype(np.float32)))  # fmt: skip
    return out


def average_precision(
    found: Sequence[Objects], truth: Sequence[Objects], n_classes: int, *, iou: float = 0.5
) -> NDArray[np.float64]:
    """Average precision of each class by pycocotools, (n_classes,) in [0, 1]; NaN for a class without an object.

    COCO's rules: detections are matched greedily from the best score down where boxes overlap by `iou`; precision is
    interpolated at 101 recalls. AP50 is the mean over the classes that occur.
    """
    from pycocotools.coco import COCO  # type: ignore[import-untyped]
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

    if len(found) != len(truth):
        raise InputError(f"detection: found objects of {len(found)} images, true ones of {len(truth)}")
    annotations: list[dict[str, Any]] = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": _xywh(box),
            "area": _area(box),
            "iscrowd": 0,
        }  # fmt: skip
        for image, objects in enumerate(truth)
        for box, label in zip(objects.boxes, objects.labels, strict=True)
    ]
    if not annotations:
        raise InputError("detection: no image holds an object to find")
    detections = [
        {"image_id": image, "category_id": int(label), "bbox": _xywh(box), "score": float(score)}
        for image, objects in enumerate(found)
        for box, label, score in zip(objects.boxes, objects.labels, _scores(objects), strict=True)
    ]
    per_class = np.full(n_classes, np.nan)
    present = sorted({annotation["category_id"] for annotation in annotations})
    if not detections:
        per_class[present] = 0.0
        return per_class
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on its steps
        known = COCO()
        known.dataset = {
            "info": {}, "images": [{"id": image} for image in range(len(truth))],
            "categories": [{"id": label} for label in range(n_classes)],
            "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, start=1)],
        }  # fmt: skip
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(detections), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # (101 recalls, classes); -1 where there is no object
    per_class[present] = precision.mean(axis=0)[present]
    return per_class


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _area(box: NDArray[np.float32]) -> float:
    _, _, width, height = _xywh(box)
    return width * height


def _scores(objects: Objects) -> NDArray[np.float32]:
    if objects.scores is None:
        raise InputError("detection: found objects have no scores")
    return objects.scores
