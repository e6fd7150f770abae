"""A published encoder as an ONNX graph, which ONNX Runtime computes on a processor without torch.

The graph is made of the weights in memory, in milliseconds: nothing comes along twice. `OnnxEncoder.save` writes it for
other programs.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selm import checkpoints
from selm.errors import InputError, unknown
from selm.files import written
from selm.settings import RESNETS, STAGES, EncoderConfig

_TOGETHER = 256  # images in memory at once, each orientation counted
_OPSET, _IR = 18, 8  # what every ONNX Runtime of the last years reads


class OnnxEncoder:
    """An encoder for use alone: `features` are those of `selm.encoder.MapEncoder`, but for rounding (2e-5).

    Raises InputError that names the file where its tensors are not those of `config`.
    """

    def __init__(self, config: EncoderConfig, weights_path: Path) -> None:
        self.config = config
        arrays, meta = checkpoints.load_arrays(weights_path)
        self.digest = meta["sha256"]
        self._palette = arrays.get("palette") if config.codes else None
        self.stage_dims, self._model = _graph(config, arrays, weights_path)

    @property
    def embedding_dim(self) -> int:
        """Length of an image's features."""
        return sum(self.stage_dims[stage - 1] for stage in self.config.stages)

    @cached_property
    def _session(self) -> Any:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: one a core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may use the processor
        return InferenceSession(self._model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def features(self, indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Palette indices (B, px, px) of images and the palette (256, 3) → float32 (B, embedding_dim).

        Raises InputError as `selm.encoder.MapEncoder.pixels` does.
        """
        if self._palette is not None and not np.array_equal(self._palette, palette):
            raise InputError(self.config.other_palette)
        out = np.empty((len(indices), self.embedding_dim), np.float32)
        step = max(1, _TOGETHER // self.config.orientations)
        for at in range(0, len(indices), step):
            some = indices[at : at + step]
            images = some if self.config.codes else palette[some]
            (out[at : at + step],) = self._session.run(None, {"images": images})
        return out

    def save(self, path: str | Path) -> None:
        """Write a .onnx file: "images" uint8 (B, px, px, 3), as `selm.draw_image` gives them, or for an encoder with
        codes palette indices (B, px, px) → "features" (B, dim)."""
        with written(Path(path)) as temporary:
            temporary.write_bytes(self._model.SerializeToString())


def _graph(config: EncoderConfig, arrays: dict[str, NDArray[Any]], source: Path) -> tuple[tuple[int, ...], Any]:
    """The channels of the four stages, and the ONNX model of `OnnxEncoder.save`."""
    from onnx import TensorProto, helper, numpy_helper

    if config.arch not in RESNETS:
        raise unknown("encoder", config.arch, RESNETS)
    depths, kernels = RESNETS[config.arch]
    width = int(64 * config.width)
    nodes: list[Any] = []
    constants: list[Any] = []
    left = set(arrays)

    def constant(value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"c{len(constants)}"))
        return str(constants[-1].name)

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"n{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def tensor(name: str, *shape: int, inside: str = "network.") -> NDArray[np.float64]:
        name = inside + name
        if (found := arrays.get(name)) is None:
            raise InputError(f"{source}: lacks '{name}', so it belongs to another model or version")
        if found.shape != shape:
            raise InputError(f"{source}: '{name}' has shape {found.shape}, the model wants {shape}")
        left.discard(name)
        return found.astype(np.float64)

    def convolved(x: str, name: str, norm: str, inside: int, outside: int, size: int, stride: int) -> str:
        """A convolution and the batch norm behind it, as one."""
        weight = tensor(f"{name}.weight", outside, inside, size, size)
        mean, variance, gain, shift = (
            tensor(f"{norm}.{part}", outside) for part in ("running_mean", "running_var", "weight", "bias")
        )
        tensor(f"{norm}.num_batches_tracked")
        scale = gain / np.sqrt(variance + 1e-5)
        kernel = constant((weight * scale[:, None, None, None]).astype(np.float32))
        bias = constant((shift - mean * scale).astype(np.float32))
        return node("Conv", x, kernel, bias, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def laid(way: int) -> str:
        """The images laid as `selm.encoder.laid` does: turned by quarters against the clock, from 4 on mirrored too."""
        x, turns = "images", way % 4
        flipped = [axis for axis, flip in ((1, turns in (1, 2)), (2, (turns in (2, 3)) != (way >= 4))) if flip]
        x = node("Transpose", x, perm=[0, 2, 1] + [3] * (not config.codes)) if turns % 2 else x
        ends = [constant(np.array([value] * len(flipped), np.int64)) for value in (-1, -(2**31), -1)] if flipped else []
        return node("Slice", x, ends[0], ends[1], constant(np.array(flipped, np.int64)), ends[2]) if flipped else x

    ways = config.orientations
    x = node("Concat", *map(laid, range(ways)), axis=0) if ways > 1 else "images"
    if config.codes:
        tensor("palette", 256, 3, inside="")
        codes = constant(tensor("codes", 256, config.codes, inside="").astype(np.float32))
        x = node("Gather", codes, node("Cast", x, to=TensorProto.INT32), axis=0)
    else:
        std = np.array(config.pixel_std, np.float64)
        x = node("Mul", node("Cast", x, to=TensorProto.DOUBLE), constant(1 / (255 * std)))
        x = node("Cast", node("Sub", x, constant(np.array(config.pixel_mean) / std)), to=TensorProto.FLOAT)
    x = node("Transpose", x, perm=[0, 3, 1, 2])
    x = node("Relu", convolved(x, "conv1", "bn1", config.codes or 3, width, config.stem, 2))
    x = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inside, pooled, dims = width, [], []
    for stage, depth in zip(STAGES, depths, strict=True):
        narrow = width * 2 ** (stage - 1)
        outside = narrow * (4 if len(kernels) == 3 else 1)
        for block in range(depth):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y, channels = x, inside
            for number, size in enumerate(kernels, start=1):
                y = node("Relu", y) if number > 1 else y
                wide = outside if number == len(kernels) else narrow
                strided = stride if size == 3 and number == kernels.index(3) + 1 else 1
                y = convolved(y, f"{name}.conv{number}", f"{name}.bn{number}", channels, wide, size, strided)
                channels = wide
            if stride > 1 or inside != outside:
                x = convolved(x, f"{name}.downsample.0", f"{name}.downsample.1", inside, outside, 1, stride)
            x, inside = node("Relu", node("Add", y, x)), outside
        dims.append(outside)
        if stage in config.stages:
            pooled.append(node("Flatten", node("GlobalAveragePool", x)))
    x = node("Concat", *pooled, axis=1)
    if left:
        raise InputError(f"{source}: has '{min(left)}', which this model does not know")
    if ways > 1:
        x = node("Reshape", x, constant(np.array([ways, -1, sum(dims[stage - 1] for stage in config.stages)])))
        x = node("ReduceMean", x, constant(np.array([0])), keepdims=0)
    nodes[-1].output[0] = "features"
    images = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["batch", "height", "width"] + [3] * (not config.codes)
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", None])
    graph = helper.make_graph(nodes, "selm", [images], [features], constants)
    return tuple(dims), helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
