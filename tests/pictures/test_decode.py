"""A picture is decoded to the pixels that a person would see, from every kind of file."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Resize, ResizeMode
from gramlet_server.pictures.decode import decode, opacity
from gramlet_server.pictures.headers import ORIENTATION
from gramlet_server.pictures.prepare import prepare
from PIL import Image

from .files import LIMITS, decoded, distance, file, png, rows, scene

KEEP = Resize()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_back_every_level(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decoded(file(scene(), kind, **options)), scene())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_alpha_channel_is_read_upright(kind: str) -> None:
    alpha = np.zeros(scene().shape[:2], np.uint8)
    alpha[:5, :9] = 128
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = np.ascontiguousarray(np.rot90(np.dstack([scene(), alpha]), 1))
    data = file(pixels, kind, exif=exif, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert np.array_equal(opacity(data, LIMITS), alpha)


def test_palettes_and_colors_may_be_transparent_and_opaque_files_have_no_alpha() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = opacity(file(gray, "PNG", transparency=5), LIMITS)
    assert found is not None
    assert np.argwhere(found == 0).tolist() == [[1, 1]]
    palette = Image.fromarray(gray).convert("P")
    stream = BytesIO()
    palette.save(stream, format="PNG", transparency=7)
    found = opacity(stream.getvalue(), LIMITS)
    assert found is not None
    assert (found == 0).sum() == 1
    for opaque in (
        file(scene(), "PNG"),
        file(scene(), "JPEG"),
        file(np.dstack([scene(), np.full_like(gray, 255, shape=scene().shape[:2])]), "PNG"),
    ):
        assert opacity(opaque, LIMITS) is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_give_back_the_picture(kind: str) -> None:
    assert distance(decoded(file(scene(), kind)), scene()) < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    stored = {
        1: scene(),
        2: scene()[:, ::-1],
        3: scene()[::-1, ::-1],
        4: scene()[::-1],
        5: scene().transpose(1, 0, 2),
        6: np.rot90(scene(), 1),
        7: scene()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(scene(), -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = file(np.ascontiguousarray(stored), kind, exif=exif)
    assert distance(decoded(data), scene()) < 6
    small = prepare(data, Resize(ResizeMode.LONGEST_SIDE, 16), LIMITS)
    assert small.shape == (3, 12, 16)
    assert small[0, 0, 0] > 0.9
    assert small[2, 0, 0] < 0.2


def test_alpha_is_laid_on_white_in_proportion() -> None:
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    image = np.dstack([scene(), alpha])
    share = alpha[..., None] / 255
    expected = np.rint(scene() * share + 255 * (1 - share))
    assert np.abs(decoded(file(image, "PNG")) - expected).max() <= 1


def test_gray_with_alpha_is_laid_on_white() -> None:
    image = Image.merge("LA", (Image.new("L", (8, 8), 40), Image.new("L", (8, 8), 0)))
    assert (decoded(file(image, "PNG")) == 255).all()


def test_palette_transparency_by_bytes_is_laid_on_white() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 50, 60, 70])
    image.putdata([0, 1, 2, 1])
    found = decoded(file(image, "PNG", transparency=bytes([0, 128, 255])))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 2].tolist() == [50, 60, 70]
    assert np.abs(found[0, 1].astype(int) - [227, 177, 127]).max() <= 1


def test_transparent_gif_is_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert decoded(file(image, "GIF", transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 0]]]


@pytest.mark.parametrize(
    ("depth", "color", "samples", "key", "expected"),
    [
        (8, 2, [[10, 20, 30, 40, 50, 60]], (10, 20, 30), [[255, 255, 255], [40, 50, 60]]),
        (8, 0, [[7, 9]], (7,), [[255] * 3, [9] * 3]),
        (16, 0, [[7 * 257, 9 * 257]], (7 * 257,), [[255] * 3, [9] * 3]),
        (16, 2, [[2570, 5140, 7710, 0, 0, 65535]], (2570, 5140, 7710), [[255] * 3, [0, 0, 255]]),
    ],
)
def test_a_pngs_color_key_is_laid_on_white(
    depth: int, color: int, samples: list[list[int]], key: tuple[int, ...], expected: list[list[int]]
) -> None:
    values = np.array(samples, ">u2" if depth == 16 else np.uint8)
    data = png(2, 1, depth, color, rows(values), (b"tRNS", struct.pack(f">{len(key)}H", *key)))
    assert decoded(data)[0].tolist() == expected


@pytest.mark.parametrize(("depth", "packed"), [(1, 0b01000000), (2, 0b00010000), (4, 0b00000001)])
def test_a_color_key_of_few_bits_is_laid_on_white(depth: int, packed: int) -> None:
    """Two pixels, 0 and 1, in the file's own levels; 0 is transparent."""
    found = decoded(png(2, 1, depth, 0, bytes([0, packed]), (b"tRNS", struct.pack(">H", 0))))
    assert found[0, :, 0].tolist() == [255, 255 // (2**depth - 1)]
    found = decoded(png(2, 1, depth, 0, bytes([0, packed]), (b"tRNS", struct.pack(">H", 1))))
    assert found[0, :, 0].tolist() == [0, 255]


def test_16_bit_gray_is_scaled_not_clipped() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    for data in (file(Image.fromarray(levels), "PNG"), file(Image.fromarray(levels), "TIFF")):
        assert np.array_equal(decoded(data), np.repeat((levels // 257).astype(np.uint8)[..., None], 3, axis=2))


def test_16_bit_rgb_is_scaled_not_clipped() -> None:
    deep = (scene().astype(np.uint16) * 257).astype(">u2").reshape(48, -1)
    assert np.array_equal(decoded(png(64, 48, 16, 2, rows(deep))), scene())


def test_floats_in_0_1_are_scaled() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decoded(file(Image.fromarray(values), "TIFF"))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not finite"), (np.inf, "not finite"), (255.0, "in 0..1")])
def test_floats_of_another_kind_are_refused(value: float, reason: str) -> None:
    values = np.full((4, 4), value, np.float32)
    with pytest.raises(InvalidInput, match=reason):
        decoded(file(Image.fromarray(values), "TIFF"))


def test_integers_without_a_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="32-bit integer"):
        decoded(file(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "YCbCr" else "JPEG" if mode == "CMYK" else "PNG"
    image = Image.fromarray(scene()).convert(mode)
    assert distance(decoded(file(image, kind)), np.asarray(image.convert("RGB"))) < 4


def test_the_first_of_several_frames_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = file(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decoded(data).mean((0, 1)) - [255, 0, 0]).max() < 8, kind


def test_other_formats_are_not_opened() -> None:
    for kind in ("ICO", "PPM", "TGA", "EPS", "PDF", "JPEG2000"):
        with pytest.raises(InvalidInput, match="not a picture of a known format") as caught:
            decode(file(scene(), kind), LIMITS, "pictures[3]")
        assert caught.value.field == "pictures[3]"


# --- limits


def test_pixels_are_counted_before_they_are_decoded() -> None:
    """The file declares 5000 x 5000 pixels and holds one row: decoding it would raise another error."""
    data = png(5000, 5000, 8, 2, b"\0" * 15001)
    with pytest.raises(InvalidInput, match=r"5000 x 5000 is 25,000,000 pixels; a picture may have 1,000,000"):
        decode(data, Limits(decoded_pixels=1_000_000))


def test_bytes_are_counted() -> None:
    with pytest.raises(InvalidInput, match=r"the file has [\d,]+ bytes; a picture may have 100"):
        decode(file(scene(), "PNG"), Limits(picture_bytes=100))


def test_the_error_about_a_picture_too_large_for_the_network_names_a_size_that_fits() -> None:
    limits = Limits(network_pixels=1000)
    with pytest.raises(InvalidInput, match="longest side of at most 36"):
        prepare(file(scene(), "PNG"), KEEP, limits)
    fitting = prepare(file(scene(), "PNG"), Resize(ResizeMode.LONGEST_SIDE, 36), limits)
    assert fitting.shape == (3, 27, 36)


def test_a_sliver_does_not_become_a_giant() -> None:
    with pytest.raises(InvalidInput, match="the network takes"):
        prepare(np.zeros((1, 60000, 3), np.uint8), Resize(ResizeMode.SHORTEST_SIDE, 512), LIMITS)


def test_a_png_without_its_last_rows_is_refused() -> None:
    """Its compressed data are well-formed: Pillow alone would make the missing rows black."""
    whole = rows(scene().reshape(48, -1))
    assert np.array_equal(decoded(png(64, 48, 8, 2, whole)), scene())
    with pytest.raises(InvalidInput, match="cut short"):
        decoded(png(64, 48, 8, 2, whole[: len(whole) // 2]))


def test_a_black_last_row_is_not_taken_for_a_missing_one() -> None:
    black = scene()
    black[-5:] = 0
    assert np.array_equal(decoded(file(black, "PNG")), black)
    assert (decoded(file(np.zeros((5, 7, 3), np.uint8), "PNG")) == 0).all()
    assert (decoded(file(Image.new("1", (9, 5)), "PNG")) == 0).all()
