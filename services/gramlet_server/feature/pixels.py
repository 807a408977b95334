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


TOGETHER_BYTES = 2 * 2**20
"""Pictures of one shape are resized in one call, up to about so many bytes of decoded pixels. Each call computes the
weights of the filter: half of the time that the filter itself takes for a picture of 256 x 256."""

_thread = threading.local()


def resized_on_cpu(pictures: Sequence[Decoded]) -> list[Decoded]:
    """Decoded pictures in their final sizes. They are resized on the calling thread alone."""
    if has_native_filter() and not getattr(_thread, "is_single", False):
        set_single_threaded()
        _thread.is_single = True
    resized = list(pictures)
    alike: dict[Any, list[int]] = {}
    for number, picture in enumerate(pictures):
        if not picture.is_final:
            key = picture.pixels.shape, picture.box, picture.height, picture.width
            alike.setdefault(key, []).append(number)
    for numbers in alike.values():
        first = pictures[numbers[0]]
        count = max(1, TOGETHER_BYTES // first.pixels.nbytes)
        for start in range(0, len(numbers), count):
            together = numbers[start : start + count]
            found = _resized_alike([pictures[number].pixels for number in together], first)
            for number, pixels in zip(together, found, strict=True):
                resized[number] = Decoded(pixels, first.height, first.width, (0, 0, first.width, first.height))
    return resized


def _resized_alike(pictures: Sequence[Pixels], first: Decoded) -> Sequence[Pixels]:
    if has_native_filter():
        return resized_natively(pictures, first.box, first.height, first.width)
    return [resample(pixels, first.box, first.height, first.width) for pixels in pictures]


@lru_cache
def has_native_filter() -> bool:
    """Whether this release of torch has the filter for 8-bit pictures; those before 2.13 do not."""
    try:
        _native(np.zeros((1, 8, 8, 3), np.uint8), 4, 4)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def resized_natively(pictures: Sequence[Pixels], box: Box, height: int, width: int) -> Sequence[Pixels]:
    """A part of each picture (H, W, 3) of one shape, resized to (height, width, 3) by torch.

    torch filters whole pictures, but near the edges of a part the filter reads pixels outside of it. So a wider part is
    resized, and what is too much is cut off. Where no wider part has a whole size after resizing, the result is
    Pillow's near those edges. It is Pillow's as well for pictures that are enlarged, where torch's weights are too
    coarse.
    """
    left, top, right, bottom = map(int, box)
    whole_height, whole_width, _ = pictures[0].shape
    is_columns_first = columns_first(whole_height, whole_width, height, width)
    rows = _margin(top, bottom, whole_height, height)
    columns = _margin(left, right, whole_width, width)
    is_narrow = rows is None or columns is None
    if (
        (left, top, right, bottom) != box
        or bottom - top < height
        or right - left < width
        or (is_narrow and (is_columns_first or min(height, width) <= 2 * EDGE))
    ):
        return [resample(pixels, box, height, width) for pixels in pictures]
    (near, above), (beside, before) = rows or (0, 0), columns or (0, 0)
    parts = _stacked([pixels[top - near : bottom + near, left - beside : right + beside] for pixels in pictures])
    if is_columns_first:
        parts = _native(parts, height + 2 * above, parts.shape[2])
    resized = _native(parts, height + 2 * above, width + 2 * before)
    resized = resized[:, above : above + height, before : before + width]
    for axis, margin in enumerate((rows, columns)):
        if margin is None:
            for pixels, edged in zip(pictures, resized, strict=True):
                _put_edges(edged, pixels, box, axis)
    return list(resized)


def _stacked(parts: Sequence[Pixels]) -> Pixels:
    """(N, H, W, 3), in a row; the only one is not copied if it is in a row. It is writable: torch would warn."""
    if len(parts) == 1 and parts[0].flags.writeable:
        return np.ascontiguousarray(parts[0])[None]
    return np.stack(parts)


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


def _native(pictures: Pixels, height: int, width: int) -> Pixels:
    # By its strides torch sees that the channels are last, and need not be packed and unpacked.
    levels = torch.from_numpy(np.ascontiguousarray(pictures).transpose(0, 3, 1, 2))  # (N, 3, H, W)
    resized = torch.nn.functional.interpolate(levels, (height, width), mode="lanczos", antialias=True)
    final: Pixels = resized.numpy().transpose(0, 2, 3, 1)
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
