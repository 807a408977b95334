"""Gram matrices, and the style loss with its gradient in closed form (Gatys, Ecker, Bethge, CVPR 2016).

Features are activations, their Gram matrices, or their means: `in_forms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gramlet.feature.types import Extraction, Form, GramNormalization
from torch import Tensor
from torch.nn import functional

from gramlet_server.backbone import onednn
from gramlet_server.backbone.onednn import times_transposed

INSIDE = 0.5
"""A position of a stage lies in a region that covers at least this share of its pixels."""


class Region:
    """A part of a picture at one stage: a guide (H, W), which activations are multiplied by.

    The guided Gram matrix of guide T is Σ_p T_p² f_p f_pᵀ (Gatys et al., "Controlling Perceptual Factors in Neural
    Style Transfer", CVPR 2017, section 4). T is the mask m, averaged over the pixels of each position, times
    sqrt(H·W / Σ m²). So a region of any area weighs as much as a whole picture, under every normalization.

    Args:
        guide: (H, W).
    """

    def __init__(self, guide: Tensor) -> None:
        self.guide = guide
        flat = guide.flatten()
        self.inside = flat.nonzero().squeeze(1)  # (P,)
        self.values = flat[self.inside, None]  # (P, 1)

    def rows(self, rows: Tensor) -> Tensor:
        """The rows (P, C) inside the region, times the guide, of rows (H·W, C)."""
        guided: Tensor = _Guided.apply(rows, self)  # type: ignore[no-untyped-call]
        return guided

    def scatter(self, guided: Tensor) -> Tensor:
        """The gradient of rows (H·W, C), from the gradient of their guided rows (P, C): zero outside the region."""
        rows = guided.new_zeros(self.guide.numel(), guided.shape[1])
        return rows.index_copy_(0, self.inside, guided * self.values)

    def part(self, rows: slice, columns: slice) -> Region:
        """The region in a part of the picture; the guide keeps its values."""
        return Region(self.guide[rows, columns])


def region_at(mask: Tensor, height: int, width: int) -> tuple[Region, bool]:
    """A mask (H', W') as a region of a stage of height x width positions; and whether any position lies in it."""
    covered = functional.adaptive_avg_pool2d(mask[None], (height, width))[0]  # area averaging
    seen = bool(covered.max() >= INSIDE * mask.max())
    return Region(covered * (covered.numel() / covered.square().sum()).sqrt()), seen


class _Guided(torch.autograd.Function):
    """Rows inside a region, each times its guide. Autograd's own gradient would add where copying is enough."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, region: Region) -> Tensor:
        ctx.region = region
        return rows[region.inside] * region.values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.region.scatter(upstream), None


def positions_by_channels(activations: Tensor) -> Tensor:
    """The activations (C, H, W) of one picture as a float32 matrix (H·W, C): a view where the memory layout allows."""
    return activations.permute(1, 2, 0).reshape(-1, activations.shape[0]).float()


def gram_matrix(activations: Tensor, normalization: GramNormalization, region: Region | None = None) -> Tensor:
    """G = F Fᵀ, where F is the C x (H·W) matrix of one picture's activations (Gatys et al., CVPR 2016, section 2.2).

    Args:
        activations: (C, H, W).
        normalization: What G is divided by.
        region: The part of the picture to take it from; None is all of it.

    Returns:
        (C, C), float32, symmetric.
    """
    rows = positions_by_channels(activations)  # (H·W, C)
    guided = rows if region is None else region.rows(rows)
    return gram_of_rows(guided).div_(divisor(*_sides(rows), normalization))


def gram_of_rows(rows: Tensor) -> Tensor:
    """AᵀA (C, C) of rows A (P, C), symmetric up to rounding. Without a gradient."""
    if not onednn.available(rows.device, rows.dtype) or not len(rows):
        return rows.T @ rows
    if len(rows) < rows.shape[1]:
        columns = rows.T.contiguous()
        return onednn.times_transposed(columns, columns)
    return onednn.kernel_gradient(rows, rows)


def _sides(matrix: Tensor) -> tuple[int, int]:
    rows, columns = matrix.shape
    return rows, columns


def divisor(positions: int, channels: int, normalization: GramNormalization) -> float:
    """What a Gram matrix over that many positions and channels is divided by."""
    return {
        GramNormalization.NONE: 1.0,
        GramNormalization.POSITIONS: float(positions),
        GramNormalization.ELEMENTS: float(positions * channels),
    }[normalization]


class _StyleLoss(torch.autograd.Function):
    """mean((AᵀA/n - T)²) and its gradient 4/(n C²) · A (AᵀA/n - T).

    Autograd would compute two products of the Gram matrix's size in the backward pass, one for each A of AᵀA. The
    difference is symmetric, so one is enough. Since the loss is a scalar, the backward pass only scales the result.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, by: float) -> Tensor:
        difference = gram_of_rows(rows)
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
        # Scale the smaller factor.
        if rows.numel() < difference.numel():
            return times_transposed(rows * scale, difference), None, None
        return times_transposed(rows, difference * scale), None, None


class _StyleLossOfFewPositions(torch.autograd.Function):
    """The same where there are fewer positions than channels, without computing a Gram matrix of size C².

    mean((AᵀA/n - T)²) · C² = |AAᵀ|²/n² - 2 A·(AT)/n + |T|², and A (AᵀA/n - T) = (AAᵀ) A/n - AT. The only matrix of size
    C² in these is T, used once. Sums that cancel are computed in float64.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, target: Tensor, energy: float, by: float) -> Tensor:
        own = times_transposed(rows, rows)  # (H·W, H·W)
        across = times_transposed(rows, target)  # (H·W, C); T is symmetric
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
    """The sum of a Gram matrix's squares, which `style_loss` can use to save time."""
    return float(gram.double().square().sum())


def style_loss(
    activations: Tensor,
    target: Tensor,
    normalization: GramNormalization,
    target_energy: float | None = None,
    region: Region | None = None,
) -> Tensor:
    """Mean squared difference between the Gram matrix of one picture's activations (C, H, W) and a target (C, C).

    Args:
        activations: (C, H, W).
        target: (C, C).
        normalization: Of both Gram matrices.
        target_energy: `energy(target)`, if it is known.
        region: The part of the picture to compare; None is all of it.

    Returns:
        A scalar, float32.
    """
    rows = positions_by_channels(activations)
    by = divisor(*_sides(rows), normalization)
    if region is not None:
        rows = region.rows(rows)
    loss: Tensor
    if target_energy is not None and 2 * rows.shape[0] <= rows.shape[1]:
        loss = _StyleLossOfFewPositions.apply(rows, target, target_energy, by)  # type: ignore[no-untyped-call]
    else:
        loss = _StyleLoss.apply(rows, target, by)  # type: ignore[no-untyped-call]
    return loss


def in_forms(found: Tensor, extraction: Extraction) -> Iterator[Tensor]:
    """Activations (N, C, H, W) of a stage in each form that is wanted."""
    for form in extraction.forms:
        yield _in_form(found, form, extraction.gram_normalization)


def _in_form(found: Tensor, form: Form, normalization: GramNormalization) -> Tensor:
    """Activations (N, C, H, W) as they are, as Gram matrices (N, C, C), or as their means over positions (N, C)."""
    match form:
        case Form.ACTIVATIONS:
            return found
        case Form.GRAM:
            grams = found.new_empty(len(found), found.shape[1], found.shape[1], dtype=torch.float32)
            for gram, activations in zip(grams, found, strict=True):  # one by one: the bits depend on no other picture
                gram.copy_(gram_matrix(activations, normalization))
            return grams
        case Form.POOLED:
            # The mean of one position is that position; to share it out among threads would cost more than the copy.
            return found.float().flatten(1) if found.shape[2:] == (1, 1) else found.float().mean(dim=(2, 3))
