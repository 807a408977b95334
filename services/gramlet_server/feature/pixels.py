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
from gramlet.types import Pixels
from numpy.typing import NDArray
from torch import Tensor

from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.pictures.resize import Box, resample

SUPPORT = 3
"""Lanczos' filter of Pillow reaches three pixels of the smaller picture to either side (Lanczos, a = 3)."""
EDGE = SUPPORT + 1
"""Pixels of the smaller picture whose filter may reach over an edge."""

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
        arrays = [picture.pixels for picture in pictures if isinstance(picture, Decoded)]
        if device.type == "cpu" and first.is_final and first.pixels.dtype == np.uint8:
            return _floats(arrays)
        stacked = stack(arrays)
        if first.pixels.dtype != np.uint8:
            return stacked
        levels = stacked.permute(0, 3, 1, 2)  # (N, 3, H, W), channels last
        if not first.is_final:
            levels = resized_by_products(levels, first.box, first.height, first.width)
    # A tensor as the divisor: by a number, CUDA would multiply with its inverse, which differs in the last bit.
    return levels.float().div_(_white(device))


def _floats(pictures: Sequence[Pixels]) -> Tensor:
    """Pictures (H, W, 3) of a CPU as a batch (N, 3, H, W) in 0..1.

    Not by torch: to share out so little among its threads costs more than it saves.
    """
    batch = np.empty((len(pictures), *pictures[0].shape), np.float32)
    for picture, floats in zip(pictures, batch, strict=True):
        np.divide(picture, np.float32(255), out=floats)
    return torch.from_numpy(batch.transpose(0, 3, 1, 2))


@lru_cache
def _white(device: torch.device) -> Tensor:
    return torch.tensor(255.0, device=device)


# --- torch's own filter, on a CPU
#
# Threads that decode share the interpreter's lock. Most calls of torch and Pillow release it and take it again, and
# each time another thread may take it in between. So there are few such calls: slices are NumPy's.


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
        pixels = resized_natively(writable, picture.box, height, width)
    return Decoded(pixels, height, width, (0, 0, width, height))


@lru_cache
def has_native_filter() -> bool:
    """Whether this release of torch has the filter for 8-bit pictures; those before 2.13 do not."""
    try:
        _native(np.zeros((8, 8, 3), np.uint8), 4, 4)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def resized_natively(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    """A part of a picture (H, W, 3), resized to (height, width, 3) by torch.

    torch filters whole pictures, but near the edges of a part the filter reads pixels outside of it. So a wider part is
    resized, and what is too much is cut off. Where no wider part has a whole size after resizing, the result is
    Pillow's near those edges. It is Pillow's as well for pictures that are enlarged, where torch's weights are too
    coarse.
    """
    left, top, right, bottom = map(int, box)
    if (left, top, right, bottom) != box or bottom - top < height or right - left < width:
        return resample(pixels, box, height, width)
    rows = _margin(top, bottom, pixels.shape[0], height)
    columns = _margin(left, right, pixels.shape[1], width)
    is_columns_first = columns_first(pixels.shape[0], pixels.shape[1], height, width)
    is_small = min(height, width) <= 2 * EDGE
    if (rows is None or columns is None) and (is_small or is_columns_first):
        return resample(pixels, box, height, width)
    (near, above), (beside, before) = rows or (0, 0), columns or (0, 0)
    part = pixels[top - near : bottom + near, left - beside : right + beside]
    if is_columns_first:
        part = _native(part, height + 2 * above, part.shape[1])
    resized = _native(part, height + 2 * above, width + 2 * before)
    resized = resized[above : above + height, before : before + width]
    for axis, margin in enumerate((rows, columns)):
        if margin is None:
            _put_edges(resized, pixels, box, axis)
    return resized


@lru_cache(maxsize=1024)
def _margin(start: int, end: int, length: int, resized: int) -> tuple[int, int] | None:
    """By how many pixels to widen a part of an axis on both sides, and how many more result on each side.

    Both are 0 if the part is the whole axis; None if there is no such number. They are as small as possible, but the
    filter at the edge of the part reads no pixel that is further away.
    """
    part = end - start
    if part == length:
        return 0, 0
    step = part // math.gcd(part, resized)
    margin = -(-(SUPPORT * part) // (resized * step)) * step
    return (margin, margin * resized // part) if margin <= min(start, length - end) else None


def _put_edges(resized: Pixels, pixels: Pixels, box: Box, axis: int) -> None:
    """Replaces the first and last rows (axis 0) or columns (axis 1) of the result by Pillow's."""
    left, top, right, bottom = box
    height, width = resized.shape[:2]
    start, per_pixel = (top, (bottom - top) / height) if axis == 0 else (left, (right - left) / width)
    size, reach = EDGE * per_pixel, math.ceil(SUPPORT * per_pixel) + 1
    for first in (0, resized.shape[axis] - EDGE):
        # Of so narrow a slab Pillow would filter the axes in another order than of the whole picture. So one by one.
        begin = start + first * per_pixel
        low = max(0, int(begin) - reach)
        slab = slice(low, math.ceil(begin + size) + reach)
        at, end = begin - low, begin - low + size
        if axis == 0:
            rows = pixels[slab]
            filtered = resample(rows, (left, 0, right, len(rows)), len(rows), width)
            resized[first : first + EDGE] = resample(filtered, (0, at, width, end), EDGE, width)
        else:
            columns = pixels[:, slab]
            filtered = resample(columns, (at, 0, end, len(columns)), len(columns), EDGE)
            resized[:, first : first + EDGE] = resample(filtered, (0, top, EDGE, bottom), height, EDGE)


def _native(pixels: Pixels, height: int, width: int) -> Pixels:
    # By its strides torch sees that the channels are last, and need not be packed and unpacked.
    whole = np.ascontiguousarray(pixels).reshape(1, *pixels.shape)
    levels = torch.from_numpy(whole.transpose(0, 3, 1, 2))  # (1, 3, H, W)
    resized = torch.nn.functional.interpolate(levels, (height, width), mode="lanczos", antialias=True)
    final: Pixels = resized.numpy()[0].transpose(1, 2, 0)
    return final


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
