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
from fractions import Fraction
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
        _native(np.zeros((1, 8, 8, 3), np.uint8), 0.5, 0.5)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def resized_natively(pictures: Sequence[Pixels], box: Box, height: int, width: int) -> Sequence[Pixels]:
    """A part of each picture (H, W, 3) of one shape, resized to (height, width, 3) by torch.

    torch's filter begins at the first pixel. A part that lies elsewhere, or between two pixels, begins where a pixel of
    the result does. So a wider part is resized, in which the result begins a whole number of its own pixels later, and
    what is too much is cut off. Where no wider part is found, the result is Pillow's. It is Pillow's as well for
    pictures that are enlarged, where torch's weights are too coarse.
    """
    left, top, right, bottom = box
    whole_height, whole_width, _ = pictures[0].shape
    rows = _wider(top, bottom, whole_height, height)
    columns = _wider(left, right, whole_width, width)
    if rows is None or columns is None:
        return [resample(pixels, box, height, width) for pixels in pictures]
    parts = _cut_out(pictures, rows, columns)
    scales = height / (bottom - top), width / (right - left)
    if columns_first(whole_height, whole_width, height, width):
        parts, scales = _native(parts, scales[0], 1.0), (1.0, scales[1])
    resized = _native(parts, *scales)
    return list(resized[:, rows.more : rows.more + height, columns.more : columns.more + width])


@dataclass(frozen=True)
class _Wider:
    """A wider part of an axis.

    Attributes:
        start, end: In pixels. The start may be negative: there is nothing, and nothing of the result is made of it.
        more: How many pixels of the resized part come before the result.
    """

    start: int
    end: int
    more: int


@lru_cache(maxsize=1024)
def _wider(start: float, end: float, length: int, resized: int) -> _Wider | None:
    """The narrowest part of an axis that contains another one with what the filter reads around it.

    None: there is none, because no pixel of the result begins where a pixel of the picture does; or the filter reads
    over the first pixel of the picture, where a negative start would make a difference; or the part is enlarged.
    """
    if end - start < resized:
        return None
    if (start, end) == (0, length):
        return _Wider(0, length, 0)
    first, step = Fraction(start), (Fraction(end) - Fraction(start)) / resized
    reach = SUPPORT * step
    if 0 < first < reach:
        return None
    for more in range(SUPPORT if first else 0, 2 * resized + 1):
        if (begin := first - more * step).denominator == 1:
            return _Wider(int(begin), min(length, math.ceil(end + reach)), more)
    return None


def _cut_out(pictures: Sequence[Pixels], rows: _Wider, columns: _Wider) -> Pixels:
    """The part of each picture (N, H, W, 3), in a row and writable: for others torch would warn."""
    top, left = max(0, rows.start), max(0, columns.start)
    parts = [pixels[top : rows.end, left : columns.end] for pixels in pictures]
    above, before = top - rows.start, left - columns.start
    if not (above or before):
        alone = parts[0] if len(parts) == 1 and parts[0].flags.writeable else None
        return np.stack(parts) if alone is None else np.ascontiguousarray(alone)[None]
    cut = np.empty((len(parts), rows.end - rows.start, columns.end - columns.start, 3), np.uint8)
    for into, part in zip(cut, parts, strict=True):
        into[above:, before:] = part
    return cut


def _native(pictures: Pixels, rows: float, columns: float) -> Pixels:
    """Pictures (N, H, W, 3), resized by these factors."""
    # By its strides torch sees that the channels are last, and need not be packed and unpacked.
    levels = torch.from_numpy(np.ascontiguousarray(pictures).transpose(0, 3, 1, 2))  # (N, 3, H, W)
    # torch rounds the new sizes down. Those of the largest number below a whole one would be too small by one.
    scales = math.nextafter(rows, 1.0 + rows), math.nextafter(columns, 1.0 + columns)
    resized = torch.nn.functional.interpolate(levels, scale_factor=scales, mode="lanczos", antialias=True)
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
