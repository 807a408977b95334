"""A picture is decoded to the pixels that a person would see, from every kind of file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from gramlet_server.pictures.decode import ORIENTATION, decode
from gramlet_server.pictures.encode import encode_jpeg, encode_png, to_uint8
from gramlet_server.pictures.prepare import prepare, stretch
from gramlet_server.pictures.resize import to_float
from PIL import Image

LIMITS = Limits()
KEEP = Resize()


def scene(height: int = 48, width: int = 64) -> Pixels:
    """Smooth, with a red corner at the top left, so that turning and mirroring show."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 200 / width, y * 200 / height, 100 + 0 * x], axis=2).astype(np.uint8)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return pixels


def file(picture: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file by hand, for what Pillow does not write. `rows` have their filter bytes."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def rows(samples: np.ndarray[Any, Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in samples)


def decoded(data: bytes) -> Pixels:
    return decode(data, LIMITS)


def distance(found: Pixels, expected: Pixels) -> float:
    """Mean difference in levels."""
    assert found.shape == expected.shape
    return float(np.abs(found.astype(float) - expected).mean())


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
    """The file says 5000 x 5000 and holds one row: reading it would fail otherwise than by its size."""
    data = png(5000, 5000, 8, 2, b"\0" * 15001)
    with pytest.raises(InvalidInput, match=r"5000 x 5000 is 25,000,000 pixels; a picture may have 1,000,000"):
        decode(data, Limits(decoded_pixels=1_000_000))


def test_bytes_are_counted() -> None:
    with pytest.raises(InvalidInput, match=r"the file has [\d,]+ bytes; a picture may have 100"):
        decode(file(scene(), "PNG"), Limits(picture_bytes=100))


def test_what_is_too_large_for_the_network_is_told_the_size_that_fits() -> None:
    limits = Limits(network_pixels=1000)
    with pytest.raises(InvalidInput, match="longest side of at most 36"):
        prepare(file(scene(), "PNG"), KEEP, limits)
    fitting = prepare(file(scene(), "PNG"), Resize(ResizeMode.LONGEST_SIDE, 36), limits)
    assert fitting.shape == (3, 27, 36)


def test_a_sliver_does_not_become_a_giant() -> None:
    with pytest.raises(InvalidInput, match="the network takes"):
        prepare(np.zeros((1, 60000, 3), np.uint8), Resize(ResizeMode.SHORTEST_SIDE, 512), LIMITS)


def test_a_png_without_its_last_rows_is_refused() -> None:
    """Its compressed data are well-formed, so that Pillow alone would make the rest black."""
    whole = rows(scene().reshape(48, -1))
    assert np.array_equal(decoded(png(64, 48, 8, 2, whole)), scene())
    with pytest.raises(InvalidInput, match="cut short"):
        decoded(png(64, 48, 8, 2, whole[: len(whole) // 2]))


def test_a_black_last_row_is_no_missing_row() -> None:
    black = scene()
    black[-5:] = 0
    assert np.array_equal(decoded(file(black, "PNG")), black)
    assert (decoded(file(np.zeros((5, 7, 3), np.uint8), "PNG")) == 0).all()
    assert (decoded(file(Image.new("1", (9, 5)), "PNG")) == 0).all()


# --- sizes


@pytest.mark.parametrize(
    ("mode", "size", "shape"),
    [
        (ResizeMode.KEEP, 0, (48, 64)),
        (ResizeMode.LONGEST_SIDE, 32, (24, 32)),
        (ResizeMode.SHORTEST_SIDE, 24, (24, 32)),
        (ResizeMode.CENTER_CROP, 24, (24, 24)),
        (ResizeMode.STRETCH, 20, (20, 20)),
        (ResizeMode.LONGEST_SIDE, 128, (96, 128)),
    ],
)
def test_a_size_measures_what_it_says(mode: ResizeMode, size: int, shape: tuple[int, int]) -> None:
    resize = Resize(mode, size)
    floats = to_float(scene())
    for picture in (file(scene(), "PNG"), scene(), floats):
        assert prepare(picture, resize, LIMITS).shape == (3, *shape)


def test_a_file_its_pixels_and_its_floats_are_resized_alike() -> None:
    resize = Resize(ResizeMode.LONGEST_SIDE, 30)
    found = [prepare(p, resize, LIMITS) for p in (file(scene(), "PNG"), scene(), to_float(scene()))]
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).mean() < 1 / 255  # uint8 is clipped between the two directions


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = prepare(stripes, Resize(ResizeMode.STRETCH, 8), LIMITS)
    assert np.abs(small - 0.5).max() < 8 / 255  # taking every second column would give 0 or 1


def test_center_crop_is_the_middle_of_the_resized_picture() -> None:
    found = prepare(scene(), Resize(ResizeMode.CENTER_CROP, 24), LIMITS)
    whole = prepare(scene(), Resize(ResizeMode.SHORTEST_SIDE, 24), LIMITS)
    assert np.abs(found - whole[:, :, 4:28]).max() < 0.05


def test_floats_keep_their_own_range() -> None:
    edge = np.zeros((3, 20, 20), np.float32)
    edge[:, :, 10:] = 1
    found = prepare(edge, Resize(ResizeMode.STRETCH, 33), LIMITS)
    assert found.min() == 0
    assert found.max() == 1


def test_stretching_gives_the_shape_asked_for() -> None:
    for picture in (file(scene(), "PNG"), scene(), to_float(scene())):
        assert stretch(picture, 30, 20, LIMITS).shape == (3, 30, 20)


@pytest.mark.parametrize("mode", [mode for mode in ResizeMode if mode is not ResizeMode.KEEP])
def test_a_size_of_nothing_is_refused(mode: ResizeMode) -> None:
    with pytest.raises(InvalidInput, match="at least 1 pixel"):
        prepare(scene(), Resize(mode, 0), LIMITS)


def test_a_jpeg_reduced_while_decoding_is_the_picture_resized(samples: Path) -> None:
    """Decoding at a quarter first changes a photograph by less than JPEG itself does."""
    photo = Image.open(samples / "content" / "tubingen.jpg").convert("RGB")
    large = photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC)
    data = file(large, "JPEG", quality=95)
    resize = Resize(ResizeMode.LONGEST_SIDE, 128)
    found = prepare(data, resize, LIMITS)
    expected = prepare(decode(data, LIMITS), resize, LIMITS)
    difference = np.abs(found - expected) * 255
    assert difference.mean() < 1
    assert difference.max() < 20


# --- arrays


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"\(height, width, 3\), not \(3, 4, 5\)"),
        (np.zeros((4, 5, 3), np.float32), r"\(3, height, width\), not \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"not \(4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), r"not \(0, 5, 3\)"),
        (np.zeros((3, 4, 5), np.int64), "not int64"),
        (np.full((3, 4, 5), np.nan, np.float32), "not finite"),
        (np.full((3, 4, 5), -np.inf, np.float32), "not finite"),
        (np.full((3, 4, 5), 255, np.float32), r"in 0\.\.1; these are in 255\.\.255"),
        ("picture.jpg", "bytes or an array, not str"),
        (b"", "empty"),
    ],
)
def test_arrays_of_another_kind_are_refused(picture: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        prepare(picture, KEEP, LIMITS, "objective.content")
    assert caught.value.field == "objective.content"


def test_floats_are_taken_as_they_are() -> None:
    picture = np.random.default_rng(0).normal(0.5, 0.1, (3, 9, 7)).astype(np.float32)
    picture[0, 0, 0] = 1.3
    assert np.array_equal(prepare(picture, KEEP, LIMITS), picture)
    assert np.array_equal(prepare(picture.astype(np.float64), KEEP, LIMITS), picture)


def test_levels_survive_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    floats = to_float(levels)
    assert floats.shape == (3, 16, 16)
    assert floats.dtype == np.float32
    assert np.array_equal(to_uint8(floats), levels)
    assert to_uint8(np.full((3, 1, 1), 1.7, np.float32)).tolist() == [[[255, 255, 255]]]


# --- writing


def test_png_keeps_every_level_and_jpeg_the_picture() -> None:
    assert np.array_equal(decoded(encode_png(scene())), scene())
    assert np.array_equal(decoded(encode_png(to_float(scene()))), scene())
    assert distance(decoded(encode_jpeg(scene(), quality=95)), scene()) < 3
    assert len(encode_jpeg(scene(), quality=20)) < len(encode_jpeg(scene(), quality=95))


def test_the_place_in_a_photograph_does_not_come_out_in_results() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 31.0, 12.0)})
    exif[0x010F] = "a camera of mine"
    data = file(scene(), "JPEG", exif=exif)
    assert b"a camera of mine" in data
    picture = prepare(data, KEEP, LIMITS)
    for result in (encode_png(picture), encode_jpeg(picture)):
        assert b"a camera of mine" not in result
        assert b"Exif" not in result
        assert not Image.open(io.BytesIO(result)).getexif()
