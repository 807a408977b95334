"""What moved between two frames, so that what was painted moves along (Ruder, Dosovitskiy, Brox, 2016, section 4.1).

The flow is that of Lucas and Kanade (1981), dense, coarse to fine: enough for pans and slow motion. Where it does not
explain the new frame, which is where something appears, nothing is taken over.
"""

from __future__ import annotations

import torch
from gramlet.types import Array
from torch import Tensor
from torch.nn import functional

from gramlet_server.stylize.colors import luminance

WINDOW = 11
"""Pixels over which neighbors are taken to move alike."""

COARSEST = 16
"""Pixels of the shorter side at the smallest level."""

REFINEMENTS = 5
"""Steps at each level."""

STIFFNESS = 1e-4
"""Added to the squared gradients: where there is nothing to see, nothing moves."""

UNEXPLAINED = 0.08
"""A difference of luminance that a flow leaves, at which half of a pixel is taken over."""


def carried_along(painted: Array, before: Array, after: Array) -> Array:
    """A painted frame moved as its content moves, and where something new appears that new content.

    Args:
        painted: What `before` was painted as, (3, H, W).
        before: The content of that frame, (3, H, W).
        after: The content of the next frame, (3, H, W).

    Returns:
        (3, H, W): where the painting of the next frame may start.
    """
    old, new = (torch.tensor(luminance(each))[None] for each in (before, after))  # (1, 1, H, W)
    flow = _flow(old, new)
    left = _smoothed((_moved(old, flow) - new).abs())
    explained = _inside(flow) / (1 + (left / UNEXPLAINED) ** 2)
    moved = _moved(torch.tensor(painted)[None], flow)
    carried: Array = (explained * moved + (1 - explained) * torch.tensor(after))[0].numpy()
    return carried


def _flow(before: Tensor, after: Tensor) -> Tensor:
    """Where each pixel of `after` (1, 1, H, W) was before, as an offset in pixels: (1, 2, H, W), x and y."""
    height, width = after.shape[2:]
    if min(height, width) >= 2 * COARSEST:
        half = (height // 2, width // 2)
        smaller = [functional.interpolate(each, half, mode="area") for each in (before, after)]
        factor = torch.tensor([width / half[1], height / half[0]])[:, None, None]
        flow = functional.interpolate(_flow(*smaller), (height, width), mode="bilinear") * factor
    else:
        flow = torch.zeros(1, 2, height, width)
    for _ in range(REFINEMENTS):
        flow = flow + _step(_moved(before, flow), after)
    return flow


def _step(moved: Tensor, after: Tensor) -> Tensor:
    """The offset that brings `moved` nearest to `after`, to first order, in the window of each pixel."""
    padded = functional.pad(moved, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    missing = after - moved
    xx, xy, yy = _smoothed(dx * dx) + STIFFNESS, _smoothed(dx * dy), _smoothed(dy * dy) + STIFFNESS
    xt, yt = _smoothed(dx * missing), _smoothed(dy * missing)
    determinant = xx * yy - xy * xy
    step = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / determinant
    return step.clamp(-1, 1)  # a first order holds no further


def _moved(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture (1, C, H, W) as it looks from where each pixel was."""
    return functional.grid_sample(picture, _grid(flow), mode="bilinear", padding_mode="border", align_corners=True)


def _inside(flow: Tensor) -> Tensor:
    """1 where a pixel was within the frame before, 0 elsewhere: (1, 1, H, W)."""
    return (_grid(flow).abs() <= 1 + 1e-3).all(dim=3)[:, None].float()  # for rounding


def _grid(flow: Tensor) -> Tensor:
    """Positions before, in -1..1: (1, H, W, 2)."""
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([x, y])[None] + flow
    size = torch.tensor([max(1, width - 1), max(1, height - 1)])[:, None, None]
    return (2 * positions / size - 1).permute(0, 2, 3, 1)


def _smoothed(values: Tensor) -> Tensor:
    return functional.avg_pool2d(values, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
