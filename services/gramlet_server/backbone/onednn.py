"""oneDNN on an x86 CPU: convolutions of a frozen network, weights packed in advance and following operations fused.

torch packs a convolution's weights again at every call, and runs the ReLU and the addition of the residual as separate
passes over memory. oneDNN's own operators, which torch's compiler emits, do neither, but they have no gradient. It is
written here by hand. The gradient with respect to a convolution's input is a convolution too, with the kernel rotated
by 180 degrees, so the same operators compute it.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_ONE = [1, 1]


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's operators can compute on this device in this element type."""
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """left (M, K) times the transpose of right (N, K): (M, N). Without a gradient.

    torch multiplies float32 matrices by MKL, which leaves out AVX-512 on AMD's processors: oneDNN takes half the time.
    """
    if not available(left.device, left.dtype):
        return left @ right.T
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return result


def kernel_gradient(left: Tensor, right: Tensor) -> Tensor:
    """The transpose of left (P, M) times right (P, N): (M, N). Without a gradient. For many rows.

    It is the gradient of a convolution of 1 x 1 with respect to its kernel, which oneDNN computes as the rows lie in
    memory. A product of matrices would need a transposed copy of them.
    """
    outputs, inputs = (each.reshape(1, len(each), 1, -1).permute(0, 3, 1, 2) for each in (left, right))
    kernel = left.new_empty(left.shape[1], right.shape[1], 1, 1)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        outputs, inputs, kernel, None, _ONE, [0, 0], _ONE, False, [0, 0], 1, [False, True, False]
    )
    result: Tensor = gradient[:, :, 0, 0]
    return result


KEPT_FORMATS = 4
"""Formats in which each convolution keeps its weights packed."""
KEPT_SHAPES = 1024
"""Shapes of input of which each convolution remembers the format."""
_PADDING = 108


class PackedConvolution:
    """A convolution by weights (C', C, k, k) and bias (C',), forward and backward. Tensors are channels_last."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> None:
        self._weight = weight.contiguous()
        self._bias = bias
        self._kernel = weight.shape[-1]
        self._stride, self._padding = [stride, stride], [padding, padding]
        self._rotated_padding = [self._kernel - 1 - padding] * 2
        # For a stride above 1 the gradient is a transposed convolution. oneDNN's is slow for a kernel of 1 x 1, where a
        # convolution followed by _dilated does the same.
        self._rotates = stride == 1 or self._kernel == 1
        self._packed = _Packed(lambda shape: _pack(self._weight, self._padding, self._stride, shape))
        self._packed_back = _Packed(self._pack_rotated if self._rotates else self._pack_transposed)

    def __call__(self, x: Tensor, *, rectified: bool) -> Tensor:
        """The convolution of x, followed by a ReLU if `rectified`."""
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
        """The gradient with respect to an input shaped like `like`, from the gradient with respect to the output."""
        weight = self._packed_back.for_input(upstream)
        result: Tensor
        if self._rotates:
            result = torch.ops.mkldnn._convolution_pointwise(
                upstream, weight, None, self._rotated_padding, _ONE, _ONE, 1, "none", [], ""
            )
            return result if self._stride == _ONE else _dilated(result, like, self._stride[0])
        rest = [self._remainder(like.shape[axis], upstream.shape[axis]) for axis in (2, 3)]
        result = torch.ops.mkldnn._convolution_transpose_pointwise(
            upstream, weight, None, self._padding, rest, self._stride, _ONE, 1, "none", [], ""
        )
        return result

    def add_gradient(self, upstream: Tensor, to: Tensor) -> None:
        """Adds the gradient with respect to the input to a tensor. Only for a stride of 1."""
        weight = self._packed_back.for_input(upstream)
        torch.ops.mkldnn._convolution_pointwise_.binary(
            to, upstream, weight, None, self._rotated_padding, _ONE, _ONE, 1, "add", 1.0, None, [], ""
        )

    def _pack_rotated(self, shape: list[int]) -> Tensor:
        return _pack(self._weight.flip(2, 3).transpose(0, 1), self._rotated_padding, _ONE, shape)

    def _pack_transposed(self, shape: list[int]) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            self._weight, self._padding, [0, 0], self._stride, _ONE, 1, shape
        )
        return packed

    def _remainder(self, size: int, result: int) -> int:
        """Rows of the input that no position of the kernel reaches."""
        return size - ((result - 1) * self._stride[0] - 2 * self._padding[0] + self._kernel)


class _Packed:
    """Weights packed for the last KEPT_SHAPES shapes of input, in at most KEPT_FORMATS formats.

    The fast packing depends on the shape. oneDNN packs weights again at every call if they are packed for another
    one, which can take a hundred times as long as the convolution. Most shapes share a format, and then the weights:
    those of a whole resnet50 take 94 MB in each.
    """

    def __init__(self, pack: Callable[[list[int]], Tensor]) -> None:
        self._pack = pack
        self._format_for: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self._by_format: OrderedDict[bytes, Tensor] = OrderedDict()

    def for_input(self, x: Tensor) -> Tensor:
        """The weights, packed for an input of this shape."""
        shape = tuple(x.shape)
        name = self._format_for.get(shape, b"")
        packed = self._by_format.get(name)
        if packed is None:
            packed = self._pack(list(shape))
            name = _format(packed)
            packed = self._by_format.setdefault(name, packed)
            self._format_for[shape] = name
            _limit(self._format_for, KEPT_SHAPES)
        self._by_format.move_to_end(name)
        _limit(self._by_format, KEPT_FORMATS)
        return packed


def _format(packed: Tensor) -> bytes:
    """Names how packed weights lie in memory. oneDNN takes weights of any format, so a wrong name costs only time."""
    descriptor = bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).tolist())
    # The four bytes before `padded_dims` of dnnl_memory_desc align it, and have no value.
    return descriptor[:_PADDING] + descriptor[_PADDING + 4 :]


def _limit(kept: OrderedDict[Any, Any], most: int) -> None:
    """Drops what was there first."""
    while len(kept) > most:
        kept.popitem(last=False)


class PackedStem:
    """The first convolution of a network: (C', C, k, k), stride 1 or 2, padding (k-1)/2, k odd.

    Since it has few input channels, both torch and oneDNN compute its gradient slowly. This class computes it as one
    convolution of stride 2/stride. Call position 2m + r of the input position m of phase r. Its gradient comes from the
    upstream positions 2m/stride + d:
    gradient[2m + r] = sum over d of upstream[2m/stride + d] · weight[r + padding - stride·d].
    The convolution returns the four phases of both axes as channels; `pixel_shuffle` puts them where they belong.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        self._weight, self._bias, self._stride = weight, bias, stride
        self._padding = weight.shape[-1] // 2
        after = (self._padding + 1) // stride  # the largest d, for r = 1, whose tap is 0 or 1
        before = self._padding // stride
        # oneDNN pads both sides equally, which adds positions to the result. They are cut off; where this convolution
        # has a stride of 2, a tap of zeros compensates instead.
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
        """The gradient with respect to an input (N, C, height, width)."""
        weight = self._packed.for_input(upstream)
        phases = torch.ops.mkldnn._convolution_pointwise(
            upstream, weight, None, *self._geometry, _ONE, 1, "none", [], ""
        )
        phases = phases[:, :, self._surplus :, self._surplus :]
        return functional.pixel_shuffle(phases, 2)[:, :, :height, :width]


def _phases(weight: Tensor, padding: int, stride: int, distances: range) -> Tensor:
    """Weights (4C, C', d, d) of the convolution from the upstream gradient to the phases, ordered for pixel_shuffle."""
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
        """The rectified outputs of the three convolutions; the last is the block's."""
        reduced, convolved, _, result = self._computed(x)
        return reduced, convolved, result

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        """One convolution after the other, see `InParts`; with a gradient, the whole block at once."""
        if _differentiates(x):
            yield self(x)
        else:
            yield from self._computed(x)

    def _computed(self, x: Tensor) -> Iterator[Tensor]:
        """The rectified outputs of the first two convolutions, the shortcut, and the block's output."""
        reduced = self._reduce(x, rectified=True)
        yield reduced
        convolved = self._convolve(reduced, rectified=True)
        yield convolved
        shortcut = x if self._downsample is None else self._downsample(x, rectified=False)
        yield shortcut
        yield self._expand.rectified_sum(convolved, shortcut)

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


def _dilated(gradient: Tensor, like: Tensor, stride: int) -> Tensor:
    """The gradient at every stride-th position, and zeros between: a kernel of 1 x 1 reads no other position."""
    dilated = torch.zeros_like(like)
    dilated[:, :, ::stride, ::stride] = gradient
    return dilated


def _differentiates(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _mask_(gradient: Tensor, result: Tensor) -> Tensor:
    """The gradient before a ReLU with this result, in place."""
    torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)
    return gradient
