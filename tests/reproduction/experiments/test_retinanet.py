"""The detector and its score: average precision against numbers worked out by hand, and a training that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reproduction.experiments.retinanet import Objects, average_precision, detect, detector, mirror, train
from selm.encoder import EncoderConfig, MapEncoder
from selm.errors import InputError


def objects(*boxes: tuple[float, float, float, float, int], scores: tuple[float, ...] | None = None) -> Objects:
    table = np.array(boxes, np.float32).reshape(-1, 5)
    return Objects(table[:, :4], table[:, 4].astype(np.int64), None if scores is None else np.array(scores, np.float32))


def test_average_precision_by_hand() -> None:
    """Two objects; found best first: a hit, a miss, a hit. Precision 1 up to recall ½, then ⅔ up to recall 1."""
    truth = [objects((0, 0, 10, 10, 0), (50, 50, 60, 60, 0)), objects()]
    found = [
        objects((0, 0, 10, 10, 0), (50, 52, 60, 62, 0), scores=(0.9, 0.7)),  # the second overlaps by 80 / 120
        objects((0, 0, 10, 10, 0), scores=(0.8,)),  # nothing is there
    ]
    recalls = np.linspace(0, 1, 101)
    expected = np.where(recalls <= 0.5, 1.0, 2 / 3).mean()
    assert average_precision(found, truth, 1).tolist() == pytest.approx([expected])
    assert average_precision(found, truth, 1, iou=0.7)[0] == pytest.approx(np.where(recalls <= 0.5, 1.0, 0.0).mean())


def test_classes_are_scored_apart_and_absent_ones_are_left_out() -> None:
    truth = [objects((0, 0, 10, 10, 0), (20, 20, 30, 30, 2))]
    found = [objects((0, 0, 10, 10, 2), (20, 20, 30, 30, 2), scores=(0.4, 0.9))]
    precision = average_precision(found, truth, 3)
    assert precision[0] == 0 and np.isnan(precision[1]) and precision[2] == pytest.approx(1.0)
    assert average_precision([objects(scores=())], truth, 3)[[0, 2]].tolist() == [0.0, 0.0]


def test_a_second_detection_of_the_same_object_is_false() -> None:
    truth = [objects((0, 0, 10, 10, 0))]
    twice = [objects((0, 0, 10, 10, 0), (0, 0, 10, 10, 0), scores=(0.5, 0.9))]
    assert average_precision(twice, truth, 1)[0] == pytest.approx(1.0)  # the better one is the hit
    first_wrong = [objects((30, 30, 40, 40, 0), (0, 0, 10, 10, 0), scores=(0.9, 0.5))]
    assert average_precision(first_wrong, truth, 1)[0] == pytest.approx(0.5)


def test_nothing_to_find_is_an_error() -> None:
    with pytest.raises(InputError, match="no image holds an object to find"):
        average_precision([objects(scores=())], [objects()], 1)
    with pytest.raises(InputError, match="images"):
        average_precision([], [objects((0, 0, 1, 1, 0))], 1)


def test_mirroring_moves_boxes_with_their_pixels() -> None:
    image = torch.zeros(3, 20, 30)
    image[:, 2:5, 7:13] = 1
    for across, down in ((False, False), (True, False), (False, True), (True, True)):
        mirrored, boxes = mirror(image, torch.tensor([[7.0, 2.0, 13.0, 5.0]]), across, down)
        x0, y0, x1, y1 = (int(v) for v in boxes[0])
        assert mirrored[:, y0:y1, x0:x1].min() == 1 and mirrored.sum() == image.sum()


def squares(n: int, px: int, seed: int) -> tuple[torch.Tensor, list[Objects]]:
    """Images with one bright square each."""
    rng = np.random.default_rng(seed)
    images, truth = torch.zeros(n, 3, px, px, dtype=torch.uint8), []
    for image in images:
        x, y = rng.integers(0, px - 28, 2)
        image[:, y : y + 28, x : x + 28] = 255
        truth.append(objects((x, y, x + 28, y + 28, 0)))
    return images, truth


def test_a_detector_learns_and_is_the_same_for_the_same_seed() -> None:
    images, truth = squares(6, 64, 0)

    def trained() -> tuple[list[float], list[Objects]]:
        torch.manual_seed(0)
        encoder = MapEncoder(EncoderConfig("resnet18", 0.125))
        model = detector(encoder, 1, px=64, mean=(0.1,) * 3, std=(0.3,) * 3, fpn_channels=16)
        losses = train(model, images, truth, epochs=6, batch=2, lr=2e-3, seed=1)
        return losses, detect(model, images[:2])

    losses, found = trained()
    assert losses[-1] < 0.75 * losses[0]
    again, found_again = trained()
    assert losses == again and np.array_equal(found[0].boxes, found_again[0].boxes)
    for objects_ in found:
        assert objects_.scores is not None and (np.diff(objects_.scores) <= 0).all()
        assert objects_.boxes.min() >= 0 and objects_.boxes.max() <= 64


@pytest.mark.parametrize(("arch", "width"), [("resnet50", 0.125), ("resnet34", 0.25)])
def test_encoders_of_any_kind_and_width_get_a_pyramid(arch: str, width: float) -> None:
    encoder = MapEncoder(EncoderConfig(arch, width))
    before = encoder.network.conv1.weight
    model = detector(encoder, 3, px=64, mean=(0.0,) * 3, std=(1.0,) * 3, fpn_channels=8).eval()
    assert model.backbone.body.conv1.weight is before  # the encoder's own weights are trained
    strides = [64 // level.shape[-1] for level in model.backbone(torch.zeros(1, 3, 64, 64)).values()]
    assert strides == [8, 16, 32, 64, 64]
    with pytest.raises(InputError, match="no image holds an object to learn from"):
        train(model, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [objects()], epochs=1)
