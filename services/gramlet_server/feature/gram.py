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
        difference = rows.T @ rows  # (C, C)
        difference.div_(by).sub_(target)
        loss = difference.square().mean()
        if ctx.needs_input_grad[0]:
            difference.mul_(4.0 / (by * difference.numel()))
            ctx.save_for_backward(rows, difference)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        rows, difference = ctx.saved_tensors
        return (rows @ (difference * upstream[0])), None, None


def style_loss(activations: Tensor, target: Tensor, normalization: GramNormalization) -> Tensor:
    """Mean squared difference between the Gram matrix of one picture's activations (C, H, W) and a target (C, C)."""
    rows = positions_by_channels(activations)
    loss: Tensor = _StyleLoss.apply(rows, target, divisor(rows, normalization))  # type: ignore[no-untyped-call]
    return loss
