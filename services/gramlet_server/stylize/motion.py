"""Optical flow: a painted frame is moved as its content moves (Ruder, Dosovitskiy, Brox, 2016, section 4.1).

The flow is that of Lucas and Kanade (1981), for every pixel, coarse to fine: good enough for pans and slow motion.
Where something new appears the flow does not explain the new frame, and nothing of the painted frame is used.
"""

from __future__ import annotations

import torch
from gramlet.types import Array
from torch import Tensor
from torch.nn import functional

from gramlet_server.stylize.colors import luminance

WINDOW = 11
"""The side in pixels of the window in which all pixels are assumed to move alike."""

COARSEST = 16
"""The least shorter side of the coarsest level, in pixels."""

REFINEMENTS = 5
"""Steps at each level."""

STIFFNESS = 1e-4
"""Added to the squared gradients, so that nothing moves where the picture is flat."""

UNEXPLAINED = 0.08
"""Where the moved frame differs from the new one by this luminance, half of the painted pixel is used."""


def carry_along(painted: Array, before: Array, after: Array) -> Array:
    """Moves a painted frame as its content moves. Where something new appears, the new content is used instead.

    Args:
        painted: The painting of `before`, (3, H, W).
        before: The content of that frame, (3, H, W).
        after: The content of the next frame, (3, H, W).

    Returns:
        (3, H, W): a start for the painting of the next frame.
    """
    old, new = (torch.tensor(luminance(each))[None] for each in (before, after))  # (1, 1, H, W)
    flow = _flow(old, new)
    difference = _smoothed((_moved(old, flow) - new).abs())
    explained = _inside(flow) / (1 + (difference / UNEXPLAINED) ** 2)
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
    """The offset that brings `moved` nearest to `after` in the window of each pixel, to first order: (1, 2, H, W)."""
    padded = functional.pad(moved, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    missing = after - moved
    xx, xy, yy = _smoothed(dx * dx) + STIFFNESS, _smoothed(dx * dy), _smoothed(dy * dy) + STIFFNESS
    xt, yt = _smoothed(dx * missing), _smoothed(dy * missing)
    determinant = xx * yy - xy * xy
    step = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / determinant
    return step.clamp(-1, 1)  # the first order is no good approximation further away


def _moved(picture: Tensor, flow: Tensor) -> Tensor:
    """Each pixel of the picture (1, C, H, W) taken from where it was."""
    return functional.grid_sample(picture, _grid(flow), mode="bilinear", padding_mode="border", align_corners=True)


def _inside(flow: Tensor) -> Tensor:
    """1 where a pixel was within the frame before, 0 elsewhere: (1, 1, H, W)."""
    return (_grid(flow).abs() <= 1 + 1e-3).all(dim=3)[:, None].float()  # 1e-3 for rounding


def _grid(flow: Tensor) -> Tensor:
    """Positions before, in -1..1: (1, H, W, 2)."""
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack([x, y])[None] + flow
    size = torch.tensor([max(1, width - 1), max(1, height - 1)])[:, None, None]
    return (2 * positions / size - 1).permute(0, 2, 3, 1)


def _smoothed(values: Tensor) -> Tensor:
    return functional.avg_pool2d(values, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
