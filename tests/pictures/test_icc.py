"""Pictures with a color profile are converted to sRGB, and no profile can make a picture fail."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from gramlet.types import Limits, Pixels, Resize
from gramlet_server.pictures.decode import decode
from gramlet_server.pictures.encode import to_uint8
from gramlet_server.pictures.icc import ImageCms
from gramlet_server.pictures.prepare import prepare
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

LIMITS = Limits()

# Columns are the XYZ of red, green and blue under D50, as in profiles.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])


def fixed(*values: float) -> bytes:
    """s15Fixed16 numbers."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def gamma_curve(gamma: float) -> bytes:
    return b"para" + bytes(8) + fixed(gamma)


SRGB_CURVE = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile by hand (ICC.1:2022, section 7)."""
    start = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI", start + len(body), b"test", 0x04200000) + kind + space + connection
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(colorants: np.ndarray[Any, Any], curve: bytes) -> bytes:
    tags = {
        f"{name}XYZ".encode(): b"XYZ " + bytes(4) + fixed(*column)
        for name, column in zip("rgb", colorants.T, strict=True)
    }
    return profile(b"RGB ", tags | {f"{name}TRC".encode(): curve for name in "rgb"})


def gray_profile(gamma: float) -> bytes:
    white = b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)
    return profile(b"GRAY", {b"wtpt": white, b"kTRC": gamma_curve(gamma)})


def press_profile() -> bytes:
    """The inks of an offset press, roughly: the Lab color (8 bits) of every combination of full inks."""
    inks = np.array([[55, -37, -50], [48, 74, -3], [89, -5, 93], [16, 0, 0]])
    table = bytearray()
    for combination in range(16):
        printed = [ink for bit, ink in zip((8, 4, 2, 1), inks, strict=True) if combination & bit]
        lightness = 100 * np.prod([ink[0] / 100 for ink in printed])
        a, b = sum((ink[1:] for ink in printed), np.zeros(2))
        table += bytes([round(lightness * 2.55), *(int(np.clip(v, -128, 127)) + 128 for v in (a, b))])
    straight = bytes(range(256))
    lut = (
        b"mft1"
        + bytes(4)
        + bytes([4, 3, 2, 0])
        + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
        + straight * 4
        + table
        + straight * 3
    )
    return profile(b"CMYK", {b"A2B0": lut}, kind=b"prtr", connection=b"Lab ")


def encoded_as_srgb(light: np.ndarray[Any, Any]) -> Pixels:
    """Levels of light in 0..1 (IEC 61966-2-1)."""
    light = light.clip(0, 1)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(levels * 255).astype(np.uint8)


def light_of(levels: Pixels) -> np.ndarray[Any, Any]:
    """The light of levels, by the curve of sRGB."""
    values = levels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def as_srgb(light: np.ndarray[Any, Any], colorants: np.ndarray[Any, Any]) -> Pixels:
    return encoded_as_srgb(light @ (np.linalg.inv(SRGB) @ colorants).T)


def colors() -> Pixels:
    """(16, 32, 3): Display P3 and Adobe RGB map them into the gamut of sRGB, or little outside of it."""
    return np.random.default_rng(0).integers(60, 200, (16, 32, 3)).astype(np.uint8)


def file(image: Image.Image | Pixels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return decode(data, LIMITS).astype(int)


P3 = rgb_profile(DISPLAY_P3, SRGB_CURVE)
P3_COLORS = as_srgb(light_of(colors()), DISPLAY_P3)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100})]
)
def test_a_wide_gamut_becomes_srgb(kind: str, options: dict[str, Any]) -> None:
    plain, found = (file(colors(), kind, **options, **icc) for icc in ({}, {"icc_profile": P3}))
    expected = as_srgb(light_of(decode(plain, LIMITS)), DISPLAY_P3).astype(int)
    assert np.abs(decoded(found) - expected).max() <= 1
    assert np.abs(decoded(found) - decoded(plain)).max() > 8
    prepared = prepare(found, Resize(), LIMITS)
    assert np.array_equal(to_uint8(prepared), decoded(found))


def test_another_curve_becomes_srgbs() -> None:
    data = file(colors(), icc_profile=rgb_profile(ADOBE_RGB, gamma_curve(2.19921875)))
    expected = as_srgb((colors() / 255) ** 2.19921875, ADOBE_RGB).astype(int)
    assert np.abs(decoded(data) - expected).max() <= 1


def test_alpha_stays_and_is_laid_over_converted_colors() -> None:
    alpha = np.full((16, 32, 1), 128, np.uint8)
    share = alpha / 255
    expected = P3_COLORS * share + 255 * (1 - share)
    assert np.abs(decoded(file(np.dstack([colors(), alpha]), icc_profile=P3)) - expected).max() <= 2


def test_a_palette_is_converted() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette(colors()[0, :3].ravel().tolist())
    image.putdata([0, 1, 2, 1])
    expected = P3_COLORS[0, [0, 1, 2, 1]].astype(int)
    assert np.abs(decoded(file(image, icc_profile=P3))[0] - expected).max() <= 1
    expected[0] = 255
    assert np.abs(decoded(file(image, icc_profile=P3, transparency=bytes([0, 255, 255])))[0] - expected).max() <= 1


def test_a_color_key_is_in_the_levels_of_the_file() -> None:
    found = decoded(file(colors(), icc_profile=P3, transparency=tuple(colors()[0, 0].tolist())))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[1:] - P3_COLORS[1:]).max() <= 1


def test_gray_is_converted_by_its_curve() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = encoded_as_srgb((levels / 255) ** 1.8)[..., None].repeat(3, axis=2).astype(int)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    opaque = Image.merge("LA", (Image.fromarray(levels), Image.new("L", (16, 16), 255)))
    for image in (Image.fromarray(levels), deep, opaque):
        assert np.abs(decoded(file(image, icc_profile=gray_profile(1.8))) - expected).max() <= 2, image.mode
    as_rgb = rgb_profile(SRGB, gamma_curve(1.8))
    assert np.abs(decoded(file(levels, icc_profile=as_rgb)) - expected).max() <= 2


def test_inks_are_those_of_the_press() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)  # paper, cyan, black
    pixels[0, 1, 0] = pixels[0, 2, 3] = 255
    image = Image.fromarray(pixels, "CMYK")
    paper, cyan, black = decoded(file(image, "TIFF", icc_profile=press_profile()))[0]
    assert paper.min() >= 254
    # CIELAB (55, -37, -50): sRGB has this color except that its red would be slightly negative.
    assert np.abs(cyan - [0, 145, 214]).max() <= 6
    assert black.max() < 45
    assert decoded(file(image, "TIFF"))[0, 1].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    "icc", [rgb_profile(SRGB, SRGB_CURVE), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_keeps_every_level(icc: bytes) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.array_equal(decoded(file(levels, icc_profile=icc)), levels)


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        b"nothing of the kind",
        P3[:140],
        P3[:-100],
        P3 + bytes(2**23),
        gray_profile(1.0),
        press_profile(),
        profile(b"RGB ", {}),
        profile(b"Lab ", {}, kind=b"abst", connection=b"Lab "),
    ],
)
def test_a_profile_that_cannot_be_used_is_ignored(icc: bytes) -> None:
    assert np.array_equal(decoded(file(colors(), "TIFF", icc_profile=icc)), colors())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_profile_never_fails_its_picture(data: st.DataObject) -> None:
    icc, pixels = data.draw(
        st.sampled_from(
            [
                (P3, Image.fromarray(colors())),
                (gray_profile(1.8), Image.fromarray(colors()[..., 0])),
                (press_profile(), Image.fromarray(colors()).convert("CMYK")),
            ]
        )
    )
    damaged = bytearray(icc)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged), 260) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    assert decoded(file(pixels, "TIFF", icc_profile=bytes(damaged))).shape == (16, 32, 3)


def test_a_profile_of_a_tiff_that_is_no_bytes_is_ignored() -> None:
    directory = ImageFileDirectory_v2()
    directory.tagtype[34675] = 4
    directory[34675] = 7
    assert np.array_equal(decoded(file(colors(), "TIFF", tiffinfo=directory)), colors())


def test_without_littlecms_nothing_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("The _imagingcms C module is not installed")

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", missing)
    unused = rgb_profile(DISPLAY_P3, gamma_curve(1.9))  # no other test has cached its conversion
    assert np.array_equal(decoded(file(colors(), icc_profile=unused)), colors())


def test_a_chain_of_elements_is_not_walked() -> None:
    """22 kB that would occupy littlecms for 10 s."""
    table = b"clut" + bytes(4) + struct.pack(">HH", 3, 3) + bytes([8, 8, 8]) + bytes(13 + 4 * 8**3 * 3)
    elements = struct.pack(">II", 16 + 8 * 2000, len(table)) * 2000
    chain = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, 2000) + elements + table
    assert np.array_equal(decoded(file(colors(), icc_profile=profile(b"RGB ", {b"D2B1": chain}))), colors())


def test_a_table_that_claims_to_be_large_costs_no_memory() -> None:
    """Profiles of 300 bytes whose tables claim 100 MB; the memory of the process must not grow."""
    claims = [b"mft2" + bytes(4) + bytes([3, 3, 255, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + bytes([0, 2, 0, 2] * 4)]
    grid = bytes([250, 250, 250]) + bytes(13) + bytes([2, 0, 0, 0])
    claims += [b"mAB " + bytes(4) + bytes([3, 3, 0, 0]) + struct.pack(">5I", 0, 0, 0, 32, 0) + grid]
    files = [file(colors(), icc_profile=profile(b"RGB ", {b"A2B0": claim})) for claim in claims]
    program = (
        "import resource, sys; from gramlet.types import Limits; from gramlet_server.pictures.decode import decode\n"
        "first, *files = eval(sys.stdin.read()); decode(first, Limits())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for data in files: decode(data, Limits())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=repr([file(colors(), icc_profile=P3), *files]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 20_000


def test_threads_share_a_conversion() -> None:
    data = file(np.tile(colors(), (20, 20, 1)), icc_profile=P3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decoded, [data] * 32))
    assert all(np.array_equal(each, found[0]) for each in found)
    assert np.abs(found[0] - np.tile(P3_COLORS, (20, 20, 1))).max() <= 1
