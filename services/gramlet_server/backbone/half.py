"""Gradients through a network that computes in float16, scaled so that they neither vanish nor overflow.

The gradients of style losses span twenty powers of ten, float16 spans nine. So the gradients at the stages are
multiplied by a power of two, one for each picture, before they enter the network, and the gradient at the picture is
divided by it. The backward pass computes the power; it never leaves the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

START = -2
"""The largest gradient that enters the network is scaled to about 2 to this power. On the way to the picture, gradients
grow about a hundredfold in ResNet-50, ten thousandfold and more in VGG-16. float16 overflows at 2^16 and loses digits
below 2^-14."""


def with_scaled_gradient(pictures: Tensor, run: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Runs a network on pictures (N, 3, H, W), with scaled gradients.

    Args:
        pictures: Require a gradient.
        run: From the pictures to activations by stage.

    Returns:
        The activations in float32.
    """
    scale = _Scale()
    found = run(_Divide.apply(pictures, scale))  # type: ignore[no-untyped-call]
    return dict(zip(found, _Multiply.apply(scale, *found.values()), strict=True))  # type: ignore[no-untyped-call]


class _Scale:
    """`factors`, (N, 1, 1, 1) float32: what the gradient of each picture is multiplied by."""

    factors: Tensor


class _Multiply(torch.autograd.Function):
    """Forward: activations as float32. Backward: scales their gradients, of all stages at once: they share a scale."""

    @staticmethod
    def forward(ctx: Any, scale: _Scale, *activations: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.dtypes = [each.dtype for each in activations]
        return tuple(each.float() if each.dtype == torch.float16 else each.view_as(each) for each in activations)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        largest = torch.stack([each.abs().amax(dim=(1, 2, 3)) for each in upstream]).amax(dim=0)  # (N,)
        _, exponents = torch.frexp(largest.clamp_min(2.0**-100))
        factors = torch.exp2((START - exponents).float()).view(-1, 1, 1, 1)
        ctx.scale.factors = factors
        return None, *((each * factors).to(dtype) for each, dtype in zip(upstream, ctx.dtypes, strict=True))


class _Divide(torch.autograd.Function):
    """Forward: the pictures as they are. Backward: removes the scale from their gradient."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, scale: _Scale) -> Tensor:
        ctx.scale = scale
        return pictures.view_as(pictures)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream / ctx.scale.factors, None
