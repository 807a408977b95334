"""The layers that the networks are built from, with frozen weights.

Operations in place write only to the fresh output of a convolution, which is neither a stage nor needed by a backward
pass: the gradient of a convolution needs its input, that of a ReLU its output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.architecture import DEVIATION
from gramlet_server.backbone.weights import Weights

EPSILON = 1e-5
"""What torchvision's batch norms add to the variance."""

Layer = Callable[[Tensor], Tensor]
Step = tuple[str, Layer]
"""A stage's name, and the layers from the stage before to it."""


@runtime_checkable
class InParts(Protocol):
    """A layer that can be computed in parts."""

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        """Computes it part by part. Yields a tensor after each part; the last is the layer's output."""
        ...


def parts_of(layer: Layer, x: Tensor) -> Iterator[Tensor]:
    """Computes a layer in as many parts as it has, with the same operations as a call of it; see `InParts.parts`."""
    if isinstance(layer, InParts):
        yield from layer.parts(x)
    else:
        yield layer(x)


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
        rectify: The ReLU of the layers; it may write to its argument.

    Attributes:
        packs: Whether layers are packed for oneDNN, whose ReLU has no other gradient than its own.
    """

    def __init__(
        self, weights: Weights, device: torch.device, dtype: torch.dtype, rectify: Layer = torch.relu_
    ) -> None:
        self.weights = weights
        self.device = device
        self.dtype = dtype
        self.rectify = rectify
        self.packs = rectify is torch.relu_ and onednn.available(device, dtype)

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


def blur(x: Tensor) -> Tensor:
    """[1 2 1] x [1 2 1] / 16 at every second position; beyond the border its values are repeated.

    One axis after the other, as sums of shifted views: in half the time of torch's depthwise convolution on a CPU. On
    CUDA the deterministic gradient of that convolution took 12 times as long as the rest of a gradient.
    """
    rows: Tensor = _Halved.apply(x, 2)  # type: ignore[no-untyped-call]
    both: Tensor = _Halved.apply(rows, 3)  # type: ignore[no-untyped-call]
    return both / 16


class _Halved(torch.autograd.Function):
    """[1 2 1] at every second position of an axis: left + 2 middle + right, of x (N, C, H, W).

    The middles are the even positions, their neighbors the odd ones. Nothing is summed in an order that could vary.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        ctx.axis, ctx.length = axis, x.shape[axis]
        middle, side = _along(x, axis, 0, None, 2), _along(x, axis, 1, None, 2)
        # An odd length ends with a middle, whose right neighbor lies beyond the border.
        count, sides = middle.shape[axis], side.shape[axis]
        right = side if sides == count else torch.cat([side, _along(x, axis, -1, None)], axis)
        result = torch.add(right, middle, alpha=2)
        _along(result, axis, 1, None).add_(_along(side, axis, 0, count - 1))
        _along(result, axis, 0, 1).add_(_along(x, axis, 0, 1))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        axis, length = ctx.axis, ctx.length
        shape = [*upstream.shape[:axis], length, *upstream.shape[axis + 1 :]]
        is_last = upstream.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else torch.contiguous_format
        gradient = torch.empty(shape, dtype=upstream.dtype, device=upstream.device, memory_format=layout)
        middle, side = _along(gradient, axis, 0, None, 2), _along(gradient, axis, 1, None, 2)
        count, sides = middle.shape[axis], side.shape[axis]
        torch.mul(upstream, 2, out=middle)
        # Each side is the right neighbor of one middle, and the left one of the next, if there is a next.
        _along(side, axis, count - 1, None).copy_(_along(upstream, axis, count - 1, sides))
        inner = _along(side, axis, 0, count - 1)
        torch.add(_along(upstream, axis, 0, count - 1), _along(upstream, axis, 1, None), out=inner)
        _along(gradient, axis, 0, 1).add_(_along(upstream, axis, 0, 1))
        if sides < count:
            _along(gradient, axis, -1, None).add_(_along(upstream, axis, -1, None))
        return gradient, None


def _along(x: Tensor, axis: int, start: int, stop: int | None, step: int = 1) -> Tensor:
    """A slice of one axis, as a view."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


@dataclass(frozen=True)
class Sequential:
    """Layers one after the other."""

    layers: tuple[Layer, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        """See `InParts`."""
        for layer in self.layers:
            for part in parts_of(layer, x):
                x = part
                yield x


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
