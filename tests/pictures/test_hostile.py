"""Any bytes give the right picture or an InvalidInput, never another error, and cost little memory."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gramlet.errors import InvalidInput
from gramlet.types import Limits, Pixels, Resize, ResizeMode
from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.headers import ORIENTATION
from gramlet_server.pictures.prepare import prepare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

LIMITS = Limits()


def outcome(data: bytes) -> Pixels | InvalidInput:
    try:
        return decode(data, LIMITS, "pictures[0].encoded")
    except InvalidInput as error:
        return error


def test_every_malformed_file_is_right_or_refused(malformed: Path) -> None:
    manifest = json.loads((malformed / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert manifest
    for name, entry in manifest.items():
        path = malformed / name
        if not path.exists():
            continue
        found = outcome(path.read_bytes())
        if isinstance(found, InvalidInput):
            assert entry["expect"] != "ok", f"{name}: {found}"
            assert found.field == "pictures[0].encoded"
        else:
            assert entry["expect"] != "refuse", name
            if entry["decodable"]:
                assert found.shape == (entry["height"], entry["width"], 3), name
            assert (
                found.std() > 0
                or "all_" in name
                or "plain" in name
                or "fully_transparent" in name
                or min(found.shape[:2]) == 1
            ), name


def test_turned_pictures_have_their_red_corner_at_the_top_left(malformed: Path) -> None:
    turned = [*malformed.glob("exif_orientation_[1-8].jpg"), malformed / "exif_orientation_6_in_png.png"]
    assert len(turned) == 9
    for path in turned:
        found = decode(path.read_bytes(), LIMITS)
        assert np.abs(found[:8, :12].mean((0, 1)) - [252, 3, 3]).max() < 8, path.name


def test_unusual_files_show_the_picture_that_plain_ones_show(malformed: Path) -> None:
    """These files were made from one scene."""
    plain = decode((malformed / "bmp_24bit.bmp").read_bytes(), LIMITS).astype(float)
    gray = decode((malformed / "jpeg_gray.jpg").read_bytes(), LIMITS).astype(float)
    colored = ["png_16bit_rgb.png", "png_interlaced_adam7.png", "png_animated_apng.png", "jpeg_cmyk.jpg"]
    colored += ["jpeg_cmyk_no_adobe_marker.jpg", "jpeg_progressive.jpg", "icc_lab_profile_on_rgb.png", "tiff_lzw.tif"]
    colored += ["tiff_multipage.tiff", "webp_lossy.webp", "webp_animated.webp", "gif_still.gif", "trailing_garbage.jpg"]
    for name in colored:
        found = decode((malformed / name).read_bytes(), LIMITS)
        assert np.abs(found - plain).mean() < 15, name  # the GIF's 64 colors are the worst
    for name in ("png_16bit_gray.png", "tiff_16bit_gray.tif"):
        found = decode((malformed / name).read_bytes(), LIMITS)
        assert np.abs(found - gray).mean() < 3, name


def kinds() -> list[bytes]:
    """A small file of each format and of the unusual modes, to be damaged."""
    y, x = np.mgrid[0:24, 0:31]
    pixels = np.stack([x * 8, y * 10, (x * y) % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    files = []
    for converted, kind, options in (
        (image, "JPEG", {"exif": exif}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif}),
        (image.convert("P"), "PNG", {"transparency": bytes([0, 99])}),
        (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG", {}),
        (image, "WEBP", {}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
        (image, "BMP", {}),
        (image.convert("P"), "BMP", {}),
        (image, "TIFF", {"exif": exif}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (Image.fromarray(pixels[..., 0] / np.float32(255)), "TIFF", {}),
    ):
        buffer = io.BytesIO()
        converted.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


FILES = kinds()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files_are_decoded_or_refused(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(FILES))
    damaged = bytearray(original)
    # Damage to a header does more than damage to pixels, so it is more likely.
    positions = st.one_of(st.integers(0, min(len(damaged), 160) - 1), st.integers(0, len(damaged) - 1))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(positions)] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    found = outcome(bytes(damaged))
    if not isinstance(found, InvalidInput):
        assert found.dtype == np.uint8
        assert found.shape[2] == 3


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]),
)
def test_noise_is_refused(noise: bytes, magic: bytes) -> None:
    outcome(magic + noise)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_files_cut_short_are_refused_not_filled_with_gray(samples: Path, cut: float) -> None:
    data = (samples / "content" / "tubingen.jpg").read_bytes()
    with pytest.raises(InvalidInput, match="cut short"):
        decode(data[: int(len(data) * cut)], LIMITS)


def test_a_giants_header_costs_no_memory() -> None:
    """The headers of these WebP, GIF and TIFF files promise many pixels; the memory of the process must not grow."""
    webp = (
        b"RIFF\x2a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 16382)[:3] * 2 + b"VP8 \x0c\0\0\0" + bytes(12)
    )
    gif = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0xF0, 0, 0) + b"\0\0\0\xff\xff\xff,"
    gif += struct.pack("<HHHHB", 65000, 65000, 65000, 65000, 0) + b"\x02\x02D\x01\0;"
    tiff = io.BytesIO()
    Image.new("1", (8000, 8001)).save(tiff, "TIFF", compression="group4")
    program = (
        "import resource, sys; from gramlet.errors import InvalidInput; from gramlet.types import Limits;"
        "from gramlet_server.pictures.decode import decode; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for data in eval(sys.stdin.read()):\n"
        "    try: decode(data, Limits()); print('decoded')\n"
        "    except InvalidInput as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=repr([webp, gif, tiff.getvalue()]),
        capture_output=True,
        text=True,
        check=True,
    )
    *answers, kibibytes = done.stdout.splitlines()
    assert len(answers) == 3
    assert "decoded" not in answers
    assert int(kibibytes) < 50_000


def tiff_of_strips(count: int, *, is_big: bool, order: str) -> bytes:
    """A directory cut off after the tag of the strips' offsets, and bytes for all of them."""
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + "HHHQ", 43, 8, 0, 16) if is_big else struct.pack(order + "HI", 42, 8)
    sizes = [(256, 3, 1, 9), (257, 3, 1, 9), (273, 4, count, 0)]
    entries = b"".join(struct.pack(order + ("HHQQ" if is_big else "HHII"), *entry) for entry in sizes)
    return mark + start + struct.pack(order + ("Q" if is_big else "H"), 4) + entries + bytes(4 * count)


@pytest.mark.parametrize(("is_big", "order"), [(False, "<"), (False, ">"), (True, "<")])
def test_a_tiff_of_very_many_strips_is_not_opened(is_big: bool, order: str) -> None:
    # Pillow would make 400 bytes of objects of each, in the process of the server.
    refused = outcome(tiff_of_strips(2**16 + 1, is_big=is_big, order=order))
    assert isinstance(refused, InvalidInput)
    assert "more than 65,536 strips" in str(refused)
    assert "65,536" not in str(outcome(tiff_of_strips(2**16, is_big=is_big, order=order)))


def test_a_damaged_file_does_not_affect_the_next_one() -> None:
    """No setting of Pillow is changed."""
    good = FILES[3]
    before = outcome(good)
    for path in FILES:
        outcome(path[: len(path) // 2])
    after = outcome(good)
    assert isinstance(before, np.ndarray)
    assert isinstance(after, np.ndarray)
    assert np.array_equal(before, after)
    assert prepare(good, Resize(ResizeMode.LONGEST_SIDE, 8), LIMITS).shape == (3, 8, 6)
