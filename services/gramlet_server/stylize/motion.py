"""Optical flow: a painted frame is moved as its content moves (Ruder, Dosovitskiy, Brox, 2016, section 4.1).

The flow is that of Lucas and Kanade (1981), for every pixel, coarse to fine: good enough for pans and slow motion.
Where something new appears the flow does not explain the new frame, and nothing of the painted frame is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gramlet.types import Array
from numpy.typing import NDArray
from PIL import Image

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

Values = NDArray[np.floating[Any]]
"""In float32 or float64."""


def carry_along(painted: Array, before: Array, after: Array) -> Array:
    """Moves a painted frame as its content moves. Where something new appears, the new content is used instead.

    Args:
        painted: The painting of `before`, (3, H, W).
        before: The content of that frame, (3, H, W).
        after: The content of the next frame, (3, H, W).

    Returns:
        (3, H, W): a start for the painting of the next frame.
    """
    old, new = luminance(before)[0], luminance(after)[0]  # (H, W)
    flow = _flow(old, new)
    difference = _smoothed(np.abs(_moved(old[None], flow)[0] - new))
    explained = _inside(flow) / (1 + (difference / UNEXPLAINED) ** 2)
    carried = explained * _moved(painted, flow) + (1 - explained) * after
    return carried.astype(np.float32)


def _flow(before: Values, after: Values) -> Values:
    """Where each pixel of `after` (H, W) was before, as an offset in pixels: (2, H, W), x and y."""
    height, width = after.shape
    if min(height, width) >= 2 * COARSEST:
        half = (height // 2, width // 2)
        coarse = _flow(*(_resampled(each, *half) for each in (before, after)))
        factors = width / half[1], height / half[0]
        flow = np.stack([_resampled(d, height, width) * f for d, f in zip(coarse, factors, strict=True)])
    else:
        flow = np.zeros((2, height, width), np.float64)
    for _ in range(REFINEMENTS):
        flow = flow + _step(_moved(before[None], flow)[0], after)
    return flow


def _resampled(values: Values, height: int, width: int) -> Values:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _step(moved: Values, after: Values) -> Values:
    """The offset that brings `moved` nearest to `after` in the window of each pixel, to first order: (2, H, W)."""
    padded = np.pad(moved, 1, mode="edge")
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    missing = after - moved
    xx, xy, yy = _smoothed(dx * dx) + STIFFNESS, _smoothed(dx * dy), _smoothed(dy * dy) + STIFFNESS
    xt, yt = _smoothed(dx * missing), _smoothed(dy * missing)
    determinant = xx * yy - xy * xy
    step = np.stack([yy * xt - xy * yt, xx * yt - xy * xt]) / determinant
    return step.clip(-1, 1)  # the first order is no good approximation further away


def _moved(picture: Values, flow: Values) -> Values:
    """Each pixel of the picture (C, H, W) taken from where it was, between four pixels by bilinear interpolation."""
    height, width = flow.shape[1:]
    x, y = _positions(flow)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = x - left, y - top
    above = picture[:, top, left] * (1 - x) + picture[:, top, right] * x
    below = picture[:, bottom, left] * (1 - x) + picture[:, bottom, right] * x
    moved: Values = above * (1 - y) + below * y
    return moved


def _inside(flow: Values) -> NDArray[np.bool_]:
    """Where a pixel was within the frame before, (H, W)."""
    height, width = flow.shape[1:]
    x, y = _positions(flow)
    aside: Values = np.maximum(np.abs(2 * x / max(1, width - 1) - 1), np.abs(2 * y / max(1, height - 1) - 1))
    return aside <= 1 + 1e-3  # 1e-3 for rounding


def _positions(flow: Values) -> tuple[Values, Values]:
    """Where the pixels were before: x and y, (H, W) each."""
    y, x = np.indices(flow.shape[1:])
    return x + flow[0], y + flow[1]


def _smoothed(values: Values) -> Values:
    """The mean over the window of each pixel, as far as the window lies within (H, W)."""
    for axis in (0, 1):
        size = values.shape[axis]
        sums = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis, dtype=np.float64)], axis)
        first = np.maximum(np.arange(size) - WINDOW // 2, 0)
        last = np.minimum(np.arange(size) + WINDOW // 2 + 1, size)
        counts = (last - first).reshape([-1, 1] if axis == 0 else [1, -1])
        values = (sums.take(last, axis) - sums.take(first, axis)) / counts
    return values
