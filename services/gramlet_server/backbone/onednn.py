"""Convolutions of a frozen network on an x86 CPU: weights packed for oneDNN beforehand, what follows fused into them.

torch packs a convolution's weights anew at every call, and runs the ReLU and the addition of the residual as passes of
their own over memory. oneDNN's own operators, the ones that torch's compiler emits, do neither; but they know no
gradient. It is written here by hand: with respect to a convolution's input it is a convolution too, with the weights
turned around, so the same operators serve.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ONE = [1, 1]


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators can compute there, in that element type."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


KEPT_SHAPES = 4
"""For so many shapes of input each convolution keeps its weights packed."""


class PackedConvolution:
    """A convolution by weights (C', C, k, k) and bias, forward and backward. Tensors are channels_last."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._kernel = weight.shape[-1]
        self._stride, self._padding = [stride, stride], [padding, padding]
        self._turned_padding = [self._kernel - 1 - padding] * 2
        # oneDNN's transposed convolution is slow for a kernel of one position, where it is not needed: see _spread.
        self._turns = stride == 1 or self._kernel == 1
        self._packed = _Packed(lambda shape: _pack(self._weight, self._padding, self._stride, shape))
        self._packed_back = _Packed(self._pack_turned if self._turns else self._pack_transposed)

    def __call__(self, x: Tensor, *, rectified: bool) -> Tensor:
        """The convolution of x, rectified or not."""
        weight, then = self._packed.for_input(x), "relu" if rectified else "none"
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self._bias, self._padding, self._stride, _ONE, 1, then, [], ""
        )
        return result

    def rectified_sum(self, x: Tensor, other: Tensor) -> Tensor:
        """relu(convolution of x + other)."""
        weight = self._packed.for_input(x)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self._bias, self._padding, self._stride, _ONE, 1, "add", 1.0, "relu", [], ""
        )
        return result

    def gradient(self, upstream: Tensor, like: Tensor) -> Tensor:
        """The gradient with respect to an input like that one, from the gradient with respect to the output."""
        weight = self._packed_back.for_input(upstream)
        result: Tensor
        if self._turns:
            result = torch.ops.mkldnn._convolution_pointwise(
                upstream, weight, None, self._turned_padding, _ONE, _ONE, 1, "none", [], ""
            )
            return result if self._stride == _ONE else _spread(result, like, self._stride[0])
        rest = [self._rest(like.shape[axis], upstream.shape[axis]) for axis in (2, 3)]
        result = torch.ops.mkldnn._convolution_transpose_pointwise(
            upstream, weight, None, self._padding, rest, self._stride, _ONE, 1, "none", [], ""
        )
        return result

    def add_gradient(self, upstream: Tensor, to: Tensor) -> None:
        """Adds the gradient to a tensor, where the stride is 1."""
        weight = self._packed_back.for_input(upstream)
        torch.ops.mkldnn._convolution_pointwise_.binary(
            to, upstream, weight, None, self._turned_padding, _ONE, _ONE, 1, "add", 1.0, None, [], ""
        )

    def _pack_turned(self, shape: list[int]) -> Tensor:
        return _pack(self._weight.flip(2, 3).transpose(0, 1), self._turned_padding, _ONE, shape)

    def _pack_transposed(self, shape: list[int]) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            self._weight, self._padding, [0, 0], self._stride, _ONE, 1, shape
        )
        return packed

    def _rest(self, size: int, result: int) -> int:
        """Rows of the input that the last position of the kernel does not reach."""
        return size - ((result - 1) * self._stride[0] - 2 * self._padding[0] + self._kernel)


class _Packed:
    """Weights packed for each of the shapes of input that were met last.

    Which packing is fast depends on the shape, and weights packed for another one are packed anew at every call, in a
    way that can take a hundred times as long as the convolution.
    """

    def __init__(self, pack: Callable[[list[int]], Tensor]) -> None:
        self._pack = pack
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def for_input(self, x: Tensor) -> Tensor:
        """The weights, packed for an input like that one."""
        shape = tuple(x.shape)
        packed = self._kept.pop(shape, None)
        if packed is None:
            packed = self._pack(list(shape))
            if len(self._kept) == KEPT_SHAPES:
                self._kept.popitem(last=False)
        self._kept[shape] = packed
        return packed


class PackedStem:
    """A convolution (C', C, k, k) of stride 1 or 2 and padding (k-1)/2, k odd, to begin a network with.

    For its few channels of input both torch and oneDNN compute the gradient slowly. Here position 2m + r of the input
    is position m of phase r, to which the upstream gradient comes from 2m/stride + d:
    gradient[2m + r] = sum over d of upstream[2m/stride + d] · weight[r + padding - stride·d]. So one convolution, whose
    stride is 2/stride, gives the four phases of both axes, which are then put in their places.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        self._weight, self._bias, self._stride = weight, bias, stride
        self._padding = weight.shape[-1] // 2
        after = (self._padding + 1) // stride  # the farthest d: of r = 1, where the tap is 0 or 1
        before = self._padding // stride
        # oneDNN pads both sides alike. What is too much of the result is left out; where that convolution has a stride
        # of 2, a tap of zeros makes up for it.
        surplus = after - before if stride == 2 else 0
        phases = _phases(weight, self._padding, stride, range(-after + surplus, after + 1))
        phases_padding, phases_stride = [after, after], [2 // stride, 2 // stride]
        self._geometry, self._surplus = (phases_padding, phases_stride), surplus
        self._packed = _Packed(lambda shape: _pack(phases, phases_padding, phases_stride, shape))

    def __call__(self, x: Tensor) -> Tensor:
        if not _differentiates(x):
            return self.forward(x)
        result: Tensor = _Stem.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of x."""
        return functional.conv2d(x, self._weight, self._bias, self._stride, self._padding)

    def gradient(self, upstream: Tensor, height: int, width: int) -> Tensor:
        """The gradient with respect to an input of that size."""
        weight = self._packed.for_input(upstream)
        phases = torch.ops.mkldnn._convolution_pointwise(
            upstream, weight, None, *self._geometry, _ONE, 1, "none", [], ""
        )
        phases = phases[:, :, self._surplus :, self._surplus :]
        return functional.pixel_shuffle(phases, 2)[:, :, :height, :width]


def _phases(weight: Tensor, padding: int, stride: int, distances: range) -> Tensor:
    """Weights (4C, C', d, d) of the convolution from an upstream gradient to the phases, in pixel_shuffle's order."""
    outputs, inputs, kernel, _ = weight.shape
    phases = weight.new_zeros(inputs, 2, 2, outputs, len(distances), len(distances))
    taps = [
        (parity, index, tap)
        for parity in (0, 1)
        for index, distance in enumerate(distances)
        if 0 <= (tap := parity + padding - stride * distance) < kernel
    ]
    for row, i, y in taps:
        for column, j, x in taps:
            phases[:, row, column, :, i, j] = weight[:, :, y, x].T
    return phases.flatten(0, 2)


class PackedBottleneck:
    """A residual block: relu(expand(relu(convolve(relu(reduce(x))))) + shortcut(x))."""

    def __init__(
        self,
        reduce: PackedConvolution,
        convolve: PackedConvolution,
        expand: PackedConvolution,
        downsample: PackedConvolution | None,
    ) -> None:
        self._reduce = reduce
        self._convolve = convolve
        self._expand = expand
        self._downsample = downsample

    def __call__(self, x: Tensor) -> Tensor:
        if not _differentiates(x):
            return self.forward(x)[-1]
        result: Tensor = _Bottleneck.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the three convolutions give, each rectified."""
        reduced = self._reduce(x, rectified=True)
        convolved = self._convolve(reduced, rectified=True)
        shortcut = x if self._downsample is None else self._downsample(x, rectified=False)
        return reduced, convolved, self._expand.rectified_sum(convolved, shortcut)

    def backward(self, upstream: Tensor, x: Tensor, reduced: Tensor, convolved: Tensor, result: Tensor) -> Tensor:
        """The gradient with respect to x."""
        upstream = torch.ops.aten.threshold_backward(upstream, result, 0)
        inner = _mask_(self._expand.gradient(upstream, convolved), convolved)
        inner = _mask_(self._convolve.gradient(inner, reduced), reduced)
        gradient = upstream if self._downsample is None else self._downsample.gradient(upstream, x)
        self._reduce.add_gradient(inner, to=gradient)
        return gradient


class PackedRectified:
    """relu(convolution of x)."""

    def __init__(self, convolution: PackedConvolution) -> None:
        self.convolution = convolution

    def __call__(self, x: Tensor) -> Tensor:
        if not _differentiates(x):
            return self.convolution(x, rectified=True)
        result: Tensor = _Rectified.apply(x, self.convolution)  # type: ignore[no-untyped-call]
        return result


class _Bottleneck(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: PackedBottleneck) -> Tensor:
        steps = block.forward(x)
        ctx.block = block
        ctx.save_for_backward(x, *steps)
        return steps[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.block.backward(_channels_last(upstream), *ctx.saved_tensors), None


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: PackedConvolution) -> Tensor:
        result = convolution(x, rectified=True)
        ctx.convolution = convolution
        ctx.save_for_backward(x, result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        x, result = ctx.saved_tensors
        masked = torch.ops.aten.threshold_backward(_channels_last(upstream), result, 0)
        return ctx.convolution.gradient(masked, x), None


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: PackedStem) -> Tensor:
        ctx.convolution, ctx.size = convolution, x.shape[2:]
        return convolution.forward(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.convolution.gradient(_channels_last(upstream), *ctx.size), None


def _pack(weight: Tensor, padding: list[int], stride: list[int], shape: list[int]) -> Tensor:
    packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
        weight.contiguous().to_mkldnn(), padding, stride, _ONE, 1, shape
    )
    return packed


def _spread(gradient: Tensor, like: Tensor, stride: int) -> Tensor:
    """The gradient at every stride-th position; a kernel of one position looks at no other."""
    spread = torch.zeros_like(like)
    spread[:, :, ::stride, ::stride] = gradient
    return spread


def _differentiates(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _mask_(gradient: Tensor, result: Tensor) -> Tensor:
    """The gradient before a ReLU that gave this result, in place."""
    torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)
    return gradient
