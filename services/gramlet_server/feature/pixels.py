"""Decoded pictures become the batch that the network takes, on its device: resized by Pillow's Lanczos, converted.

Pillow filters one axis, rounds to 8 bits, filters the other axis, and rounds again. There are two implementations. For
a CPU, torch's own filter of 8-bit pictures, which comes within one level of Pillow's and is several times as fast; it
runs in the threads that decode, before a picture waits for the device. For other devices, two matrix products on the
device, whose matrices hold the weights of the filter, with Pillow's bits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.pictures.resize import Box, resample

SUPPORT = 3
"""Lanczos' filter of Pillow reaches three pixels of the smaller picture to either side (Lanczos, a = 3)."""

Stack = Callable[[Sequence[NDArray[Any]]], Tensor]
"""Puts arrays of one shape and type onto the device, as one tensor."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A picture that was decoded and resized by the device, in whose memory it is.

    Attributes:
        pixels: (3, height, width) uint8. What has computed them is finished.
        height, width: In pixels, as the network takes it.
    """

    pixels: Tensor
    height: int
    width: int


def batch_of(pictures: Sequence[Decoded | OnDevice], stack: Stack, device: torch.device) -> Tensor:
    """Decoded pictures of one final size as a batch (N, 3, height, width), float32, RGB in 0..1, channels last.

    Pictures that are alike before they are resized are resized together.
    """
    alike: dict[Any, list[int]] = {}
    for number, picture in enumerate(pictures):
        box = picture.box if isinstance(picture, Decoded) else None
        alike.setdefault((picture.pixels.dtype, picture.pixels.shape, box), []).append(number)
    if len(alike) == 1:
        return _batch_of_alike(pictures, stack, device)
    first = pictures[0]
    shape = (len(pictures), 3, first.height, first.width)
    batch = torch.empty(shape, device=device, memory_format=torch.channels_last)
    for numbers in alike.values():
        batch[numbers] = _batch_of_alike([pictures[number] for number in numbers], stack, device)
    return batch


def _batch_of_alike(pictures: Sequence[Decoded | OnDevice], stack: Stack, device: torch.device) -> Tensor:
    first = pictures[0]
    if isinstance(first, OnDevice):
        levels = torch.stack([picture.pixels for picture in pictures if isinstance(picture, OnDevice)])
    else:
        stacked = stack([picture.pixels for picture in pictures if isinstance(picture, Decoded)])
        if first.pixels.dtype != np.uint8:
            return stacked
        levels = stacked.permute(0, 3, 1, 2)  # (N, 3, H, W), channels last
        if not first.is_final:
            levels = resized_by_products(levels, first.box, first.height, first.width)
    if device.type == "cpu":
        # Not by torch: to share out so little among its threads costs more than it saves.
        return torch.from_numpy(np.divide(levels.numpy(), np.float32(255), dtype=np.float32))
    # A tensor as the divisor: by a number, CUDA would multiply with its inverse, which differs in the last bit.
    return levels.float().div_(_white(device))


@lru_cache
def _white(device: torch.device) -> Tensor:
    return torch.tensor(255.0, device=device)


# --- torch's own filter, on a CPU


_thread = threading.local()


def resized_on_cpu(picture: Decoded) -> Decoded:
    """A decoded picture in its final size. It is resized on the calling thread alone."""
    if picture.is_final:
        return picture
    height, width = picture.height, picture.width
    if not has_native_filter():
        pixels = resample(picture.pixels, picture.box, height, width)
    else:
        if not getattr(_thread, "is_single", False):
            set_single_threaded()
            _thread.is_single = True
        # torch warns about read-only arrays; nothing is written here.
        writable = picture.pixels if picture.pixels.flags.writeable else picture.pixels.copy()
        levels = torch.from_numpy(writable)[None].permute(0, 3, 1, 2)
        pixels = resized_natively(levels, picture.box, height, width)[0].permute(1, 2, 0).numpy()
    return Decoded(pixels, height, width, (0, 0, width, height))


@lru_cache
def has_native_filter() -> bool:
    """Whether this release of torch has the filter for 8-bit pictures; those before 2.13 do not."""
    try:
        _native(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 4, 4)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def resized_natively(levels: Tensor, box: Box, height: int, width: int) -> Tensor:
    """A part of 8-bit pictures (N, 3, H, W), resized to (N, 3, height, width) by torch.

    torch filters whole pictures. Near the edges of a part, the filter reads pixels outside of it; there the result is
    Pillow's, as it is for pictures that are enlarged, where torch's weights are too coarse.
    """
    left, top, right, bottom = map(int, box)
    part = levels[:, :, top:bottom, left:right]
    if part.shape[2] < height or part.shape[3] < width:
        return _by_pillow(levels, box, height, width)
    is_columns_first = columns_first(levels.shape[2], levels.shape[3], height, width)
    if part.shape == levels.shape:
        return _native(_native(part, height, part.shape[3]) if is_columns_first else part, height, width)
    cut_rows, cut_columns = part.shape[2] < levels.shape[2], part.shape[3] < levels.shape[3]
    edge = SUPPORT + 1  # pixels whose filter may reach over an edge
    is_small = (cut_rows and 2 * edge >= height) or (cut_columns and 2 * edge >= width)
    if is_small or is_columns_first or (left, top, right, bottom) != box:
        return _by_pillow(levels, box, height, width)
    resized = _native(part, height, width)
    per_row, per_column = part.shape[2] / height, part.shape[3] / width
    if cut_columns:
        resized[..., :edge] = _by_pillow(levels, (left, top, left + edge * per_column, bottom), height, edge)
        resized[..., -edge:] = _by_pillow(levels, (right - edge * per_column, top, right, bottom), height, edge)
    if cut_rows:
        # The filter of so few rows reads no more rows than these. From a whole picture Pillow would filter the columns
        # first, because so few rows are left of it.
        near = math.ceil((edge + SUPPORT) * per_row) + 1
        above, below = max(0, top - near), min(levels.shape[2], bottom + near)
        first, last = levels[:, :, above : top + near], levels[:, :, bottom - near : below]
        box_of_first = (left, top - above, right, top - above + edge * per_row)
        resized[:, :, :edge] = _by_pillow(first, box_of_first, edge, width)
        box_of_last = (left, near - edge * per_row, right, near)
        resized[:, :, -edge:] = _by_pillow(last, box_of_last, edge, width)
    return resized


def _native(levels: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(levels, (height, width), mode="lanczos", antialias=True)


def _by_pillow(levels: Tensor, box: Box, height: int, width: int) -> Tensor:
    resized = [resample(picture.numpy(), box, height, width) for picture in levels.permute(0, 2, 3, 1)]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


# --- two matrix products, on any device


def resized_by_products(levels: Tensor, box: Box, height: int, width: int) -> Tensor:
    """A part of 8-bit pictures (N, 3, H, W), resized to (N, 3, height, width): whole levels in float32."""
    left, top, right, bottom = box
    columns = _filter(levels.shape[3], left, right, width, levels.device)
    rows = _filter(levels.shape[2], top, bottom, height, levels.device)
    exact = levels.double().contiguous()  # of whole numbers below 2^53: every sum is exact
    if columns_first(levels.shape[2], levels.shape[3], height, width):
        resized = _rounded(_rounded(rows @ exact) @ columns.T)
    else:
        resized = _rounded(rows @ _rounded(exact @ columns.T))
    return resized.float()


def columns_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow 13 filters the columns first. With a box, the sizes are those of the whole picture."""
    return height > new_height and height - new_height > 2 * (width - new_width)


def _rounded(levels: Tensor) -> Tensor:
    """To whole levels of 0..255, half up, as Pillow rounds."""
    return levels.add_(0.5).floor_().clamp_(0, 255)


@lru_cache(maxsize=256)
def _filter(length: int, start: float, end: float, resized: int, device: torch.device) -> Tensor:
    """The weights (resized, length) with which Pillow resamples one axis, in its fixed point of 22 bits.

    See Pillow's Resample.c, precompute_coeffs and normalize_coeffs_8bpc.
    """
    per_pixel = (end - start) / resized
    stretch = max(per_pixel, 1.0)
    centers = (start + (np.arange(resized) + 0.5) * per_pixel)[:, None]
    positions = np.arange(length)[None]
    first = np.maximum((centers - SUPPORT * stretch + 0.5).astype(np.int64), 0)
    end_of = np.minimum((centers + SUPPORT * stretch + 0.5).astype(np.int64), length)
    distances = (positions - centers + 0.5) / stretch
    weights = np.sinc(distances) * np.sinc(distances / SUPPORT)
    weights[(distances < -SUPPORT) | (distances >= SUPPORT) | (positions < first) | (positions >= end_of)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * 2**22 + np.copysign(0.5, weights)) / 2**22
    return torch.from_numpy(fixed).to(device)
