"""The layers that the networks are built from, with frozen weights.

Operations in place write only to the fresh output of a convolution, which is neither a stage nor needed by a backward
pass: the gradient of a convolution needs its input, that of a ReLU its output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.architecture import DEVIATION
from gramlet_server.backbone.weights import Weights

EPSILON = 1e-5
"""What torchvision's batch norms add to the variance."""

Layer = Callable[[Tensor], Tensor]
Step = tuple[str, Layer]
"""A stage's name, and the layers from the stage before to it."""


@dataclass(frozen=True)
class Path:
    """A way through the network, from the picture to its last stage.

    Attributes:
        dtype: What the first layer takes.
        steps: Stage after stage.
        joined_stem: From the picture directly to the second stage. It is used where the first stage is not asked for:
            the batch norm between the two is then folded into the first convolution.
        antialiased: The same way with antialiased strides.
    """

    dtype: torch.dtype
    steps: list[Step]
    joined_stem: Step | None = None
    antialiased: Path | None = None

    def toward(self, wanted: Collection[str], antialiased: bool) -> Iterator[Step]:
        """The steps to take for these stages."""
        if antialiased and self.antialiased is not None:
            yield from self.antialiased.toward(wanted, antialiased=False)
        elif self.joined_stem is None or self.steps[0][0] in wanted:
            yield from self.steps
        else:
            yield self.joined_stem
            yield from self.steps[2:]


class WeightsLoader:
    """Makes layers of a network's weights: on a device, in an element type, channels_last, without gradients.

    Args:
        weights: The weights.
        device: Where the layers will compute.
        dtype: What they will compute in.

    Attributes:
        packs: Whether layers are packed for oneDNN.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self.weights = weights
        self.device = device
        self.dtype = dtype
        self.packs = onednn.available(device, dtype)

    def convolution(self, name: str, batch_norm: str | None = None, stride: int = 1) -> Convolution:
        """The convolution of that name, with the batch norm after it folded in (in float64)."""
        weight = self._read(f"{name}.weight")
        bias = self._read(f"{name}.bias") if f"{name}.bias" in self.weights.state else None
        if batch_norm is not None:
            scale, shift = self._folded(batch_norm)
            weight, bias = weight * scale.view(-1, 1, 1, 1), shift
        if weight.shape[1] == 3:
            # The first layer takes pictures minus the mean color. Zero padding is the mean color with or without the
            # division by the deviation, so dividing the weights instead is exact. Adding the mean to the bias as well
            # would not be exact at the borders.
            weight = weight / torch.tensor(DEVIATION, dtype=weight.dtype).view(1, 3, 1, 1)
        padding = weight.shape[-1] // 2
        return Convolution(
            weight.to(self.device, self.dtype, memory_format=torch.channels_last),
            None if bias is None else bias.to(self.device, self.dtype),
            stride,
            padding,
        )

    def batch_norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Scale and shift, (1, C, 1, 1) each, of a batch norm that is not folded."""
        scale, shift = (part.to(self.device, self.dtype).view(1, -1, 1, 1) for part in self._folded(name))
        return scale, shift

    def _read(self, name: str) -> Tensor:
        return self.weights.state[name].double()

    def _folded(self, name: str) -> tuple[Tensor, Tensor]:
        """Scale and shift, (C,) float64 each."""
        scale = self._read(f"{name}.weight") / torch.sqrt(self._read(f"{name}.running_var") + EPSILON)
        return scale, self._read(f"{name}.bias") - scale * self._read(f"{name}.running_mean")


@dataclass(frozen=True)
class Convolution:
    """A convolution by weights (C', C, k, k) and bias (C',)."""

    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int

    def __call__(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def packed(self) -> onednn.PackedConvolution:
        """The same, packed for oneDNN."""
        return onednn.PackedConvolution(self.weight, self.bias, self.stride, self.padding)


class Blur:
    """[1 2 1] x [1 2 1] / 16 at every second position; beyond the border its values are repeated."""

    def __init__(self, loader: WeightsLoader) -> None:
        row = torch.tensor([0.25, 0.5, 0.25], device=loader.device, dtype=loader.dtype)
        self._kernel = (row[:, None] * row)[None, None]

    def __call__(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self._kernel.expand(channels, 1, 3, 3)
        return functional.conv2d(_repeated_border(x), kernel, stride=2, groups=channels)


def _repeated_border(x: Tensor) -> Tensor:
    """The border repeated by one position on each side."""
    if x.device.type != "cuda":
        return functional.pad(x, (1, 1, 1, 1), mode="replicate")
    # There, the gradient of padding is summed in the order in which threads finish, so its bits vary.
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)


@dataclass(frozen=True)
class Sequential:
    """Layers one after the other."""

    layers: tuple[Layer, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def average(x: Tensor) -> Tensor:
    """The mean over all positions: (N, C, 1, 1) of (N, C, H, W)."""
    return x.mean(dim=(2, 3), keepdim=True)


def cast_first(steps: list[Step], dtype: torch.dtype, stem: WeightsLoader) -> list[Step]:
    """The steps behind a stem, which take its output in its element type and compute in their own, `dtype`."""
    if stem.dtype == dtype:
        return steps
    name, first = steps[0]
    inner = first.layers if isinstance(first, Sequential) else (first,)
    return [(name, Sequential((lambda x: x.to(dtype), *inner))), *steps[1:]]


Body = Callable[[WeightsLoader], Path]
"""The layers after the stem. Called with the stem's loader, it returns the whole way, stem included."""
