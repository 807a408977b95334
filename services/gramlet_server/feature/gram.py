"""Gram matrices, and the style loss between them with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from gramlet.types import GramNormalization
from torch import Tensor


def positions_by_channels(activations: Tensor) -> Tensor:
    """The activations (C, H, W) of one picture as a matrix (H·W, C), in float32: a view where the layout allows."""
    return activations.permute(1, 2, 0).reshape(-1, activations.shape[0]).float()


def gram_matrix(activations: Tensor, normalization: GramNormalization) -> Tensor:
    """G = F Fᵀ, F being the C x (H·W) matrix of one picture's activations (Gatys et al., 2016, section 2.2).

    Args:
        activations: (C, H, W).
        normalization: What G is divided by.

    Returns:
        (C, C), float32, symmetric.
    """
    rows = positions_by_channels(activations)  # (H·W, C)
    return (rows.T @ rows) / divisor(rows, normalization)


def divisor(rows: Tensor, normalization: GramNormalization) -> float:
    """What the Gram matrix of rows (H·W, C) is divided by."""
    return {
        GramNormalization.NONE: 1.0,
        GramNormalization.POSITIONS: float(rows.shape[0]),
        GramNormalization.ELEMENTS: float(rows.numel()),
    }[normalization]


class _StyleLoss(torch.autograd.Function):
    """mean((AᵀA/n - T)²) and its gradient 4/(n C²) · A (AᵀA/n - T).

    Autograd would spend two products of the Gram's size on the backward pass, one for each A of AᵀA. The difference is
    symmetric, so one is enough; and since the loss is a scalar, the backward pass only scales what is already known.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, by: float) -> Tensor:
        difference = torch.mm(rows.T, rows)  # (C, C)
        if by != 1:
            difference.div_(by)
        difference.sub_(target)
        ctx.scale = 4.0 / (by * difference.numel())
        ctx.save_for_backward(rows, difference)
        flat = difference.view(-1)
        return flat.dot(flat) / flat.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows, difference = ctx.saved_tensors
        scale = upstream * ctx.scale
        # Whichever is smaller is scaled.
        if rows.numel() < difference.numel():
            return (rows * scale) @ difference, None, None
        return rows @ (difference * scale), None, None


class _StyleLossOfFewPositions(torch.autograd.Function):
    """The same where positions are fewer than channels, without any Gram matrix of size C².

    mean((AᵀA/n - T)²) · C² = |AAᵀ|²/n² - 2 A·(AT)/n + |T|², and A (AᵀA/n - T) = (AAᵀ) A/n - AT: what is left of size C²
    is T, once. The sums that cancel are taken in float64.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, energy: float, by: float) -> Tensor:
        own = rows @ rows.T  # (H·W, H·W)
        across = rows @ target  # (H·W, C)
        ctx.scale = 4.0 / (by * target.numel())
        ctx.save_for_backward(torch.addmm(across, own, rows, beta=-1, alpha=1 / by))
        squares = own.double().square().sum() / by**2 - 2 / by * (rows.double() * across).sum() + energy
        return (squares / target.numel()).clamp_min(0).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (direction,) = ctx.saved_tensors
        return direction * (upstream * ctx.scale), None, None, None


def energy(gram: Tensor) -> float:
    """The sum of a Gram matrix's squares, which `style_loss` saves time by."""
    return float(gram.double().square().sum())


def style_loss(
    activations: Tensor, target: Tensor, normalization: GramNormalization, target_energy: float | None = None
) -> Tensor:
    """Mean squared difference between the Gram matrix of one picture's activations (C, H, W) and a target (C, C).

    Args:
        activations: (C, H, W).
        target: (C, C).
        normalization: Of both Gram matrices.
        target_energy: `energy(target)`, if it is known.
    """
    rows = positions_by_channels(activations)
    by = divisor(rows, normalization)
    loss: Tensor
    if target_energy is not None and 2 * rows.shape[0] <= rows.shape[1]:
        loss = _StyleLossOfFewPositions.apply(rows, target, target_energy, by)  # type: ignore[no-untyped-call]
    else:
        loss = _StyleLoss.apply(rows, target, by)  # type: ignore[no-untyped-call]
    return loss
