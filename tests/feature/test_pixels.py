"""Pictures resized on a device are Pillow's: with its bits by matrix products, within a level by torch's filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from gramlet_server.feature.pixels import (
    batch_of,
    has_native_filter,
    resized_by_products,
    resized_natively,
    resized_on_cpu,
)
from gramlet_server.pictures.prepare import Decoded, decode_for, prepare
from gramlet_server.pictures.resize import kept_box, resample, target_size

CPU = torch.device("cpu")
MODES = [mode for mode in ResizeMode if mode is not ResizeMode.KEEP]


def picture(random: np.random.Generator, number: int) -> Pixels:
    """Of a random size: noise, black and white, or smooth."""
    height, width = (int(length) for length in random.integers(8, 400, 2))
    if number % 3 == 0:
        return random.integers(0, 256, (height, width, 3), np.uint8)
    if number % 3 == 1:
        return random.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(255)
    rows, columns = np.mgrid[:height, :width]
    return (np.stack([rows, columns, rows * columns // 50], axis=2) % 256).astype(np.uint8)


@pytest.mark.parametrize("mode", MODES)
def test_resized_as_pillow_does(mode: ResizeMode) -> None:
    random = np.random.default_rng(0)
    apart = total = 0
    for number in range(60):
        pixels = picture(random, number)
        resize = Resize(mode, int(random.integers(6, 250)))
        height, width = target_size(*pixels.shape[:2], resize)
        if height * width > 500_000:
            continue
        box = kept_box(pixels.shape[1], pixels.shape[0], resize)
        expected = resample(pixels, box, height, width)
        levels = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        products = resized_by_products(levels, box, height, width)[0].permute(1, 2, 0)
        assert np.array_equal(products.numpy(), expected)
        if has_native_filter():
            native = resized_natively([pixels], box, height, width)[0]
            difference = np.abs(native.astype(int) - expected)
            assert difference.max() <= 2
            apart, total = apart + int((difference > 1).sum()), total + difference.size
    assert apart <= total / 100_000  # its weights have 16 bits: two roundings may add up


@pytest.mark.skipif(not has_native_filter(), reason="this release of torch has no filter for 8-bit pictures")
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        pytest.param(480, 640, 224, id="wider part"),
        pytest.param(640, 480, 224, id="higher part"),
        pytest.param(400, 240, 60, id="columns first"),
        pytest.param(426, 640, 224, id="wider than the picture"),
        pytest.param(640, 426, 224, id="higher than the picture"),
        pytest.param(228, 226, 224, id="hardly smaller, at the edge"),
        pytest.param(427, 640, 224, id="between pixels"),
        pytest.param(500, 375, 224, id="between pixels, higher than the picture"),
        pytest.param(500, 333, 224, id="between pixels, columns first"),
        pytest.param(448, 501, 224, id="between pixels, no wider part"),
    ],
)
def test_a_part_is_filtered_with_the_pixels_around_it(height: int, width: int, size: int) -> None:
    random = np.random.default_rng(0)
    resize = Resize(ResizeMode.CENTER_CROP, size)
    for pixels in (random.integers(0, 256, (height, width, 3), np.uint8), picture_of_edges(height, width)):
        box = kept_box(width, height, resize)
        native = resized_natively([pixels], box, size, size)[0]
        difference = np.abs(native.astype(int) - resample(pixels, box, size, size))
        assert difference.max() <= 2
        assert (difference > 1).sum() <= difference.size / 50_000
        # The edges are as good as the rest.
        assert (difference[:, :4] > 0).mean() < 0.02
        assert (difference[:4] > 0).mean() < 0.02


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 64), (60, 36), (43, 64)])
def test_pictures_resized_together_have_the_bits_that_each_has_alone(height: int, width: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    resize = Resize(ResizeMode.CENTER_CROP, 24)
    decoded = [decode_for(each, resize, Limits()) for each in pictures]
    together = resized_on_cpu(decoded)
    for each, alone in zip(together, decoded, strict=True):
        np.testing.assert_array_equal(each.pixels, resized_on_cpu([alone])[0].pixels)


def picture_of_edges(height: int, width: int) -> Pixels:
    """White outside of the central square, black inside: what a filter that ignores the outside gets wrong."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 0
    return pixels


@pytest.mark.parametrize("before", [resized_on_cpu, lambda decoded: decoded], ids=["ahead", "on the device"])
def test_a_batch_of_unlike_pictures_has_each_as_it_would_be_alone(
    before: Callable[[Sequence[Decoded]], Sequence[Decoded]],
) -> None:
    random = np.random.default_rng(0)
    resize = Resize(ResizeMode.CENTER_CROP, 32)
    pictures = [picture(random, number) for number in range(6)]
    pictures += [pictures[0], np.float32(random.random((3, 40, 50))), random.integers(0, 256, (32, 32, 3), np.uint8)]
    decoded = [decode_for(each, resize, Limits()) for each in pictures]
    batch = batch_of(before(decoded), lambda arrays: torch.from_numpy(np.stack(arrays)), CPU)
    assert batch.shape == (9, 3, 32, 32)
    for number, each in enumerate(pictures):
        assert np.abs(batch[number].numpy() - prepare(each, resize, Limits())).max() <= 2 / 255


def test_what_is_not_resized_has_the_same_bits() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 24, 40, 3), np.uint8)
    decoded = [decode_for(each, Resize(), Limits()) for each in pixels]
    assert all(each.is_final for each in decoded)
    batch = batch_of(decoded, lambda arrays: torch.from_numpy(np.stack(arrays)), CPU)
    assert np.array_equal(batch.numpy(), np.stack([prepare(each, Resize(), Limits()) for each in pixels]))


def test_large_pictures_are_resized_where_they_are_decoded() -> None:
    pixels = np.zeros((1100, 1000, 3), np.uint8)
    small = decode_for(pixels, Resize(ResizeMode.STRETCH, 50), Limits())
    assert small.is_final
    assert small.pixels.shape == (50, 50, 3)
    assert not decode_for(pixels[:1000], Resize(ResizeMode.STRETCH, 50), Limits()).is_final
    assert isinstance(small, Decoded)
