"""ICC profiles: colors of a file are converted to sRGB, which all pictures here are in.

A profile can be as hostile as the file that holds it. A profile that is broken, that belongs to other kinds of pixels
than the file's, or that would cost littlecms too much, is ignored.
"""

from __future__ import annotations

import io
import math
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MOST_BYTES = 4 * 2**20
"""Larger profiles are ignored; those of printing presses have up to 3 MB."""

CACHED_CONVERSIONS = 16
"""Pictures of one camera or one studio share a profile."""

INVISIBLE = 2
"""A profile that moves no color by more levels than this is taken for sRGB, whose own profiles differ by rounding."""

CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
"""Profiles of devices and of color spaces. Other profiles connect profiles, or name single colors."""

SPACES = {"L": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}
"""The name in profiles for the pixels of each of Pillow's modes."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture converted to sRGB: RGBA of RGBA, with the same alpha, and RGB of all other modes.

    Args:
        image: Loaded, in a mode that Pillow converts to RGB.
        profile: Its ICC profile.

    Returns:
        None if the profile cannot be used, or if it is sRGB.
    """
    if len(profile) > MOST_BYTES:
        return None
    if image.mode in ("1", "L") and profile[16:20] == SPACES["L"]:  # gray may have a profile of RGB as well
        mode = "L"
    else:
        mode = image.mode if image.mode in ("CMYK", "RGBA") else "RGB"
    conversion = _conversion(profile, mode)
    if conversion is None:
        return None
    return conversion.apply(image if image.mode == mode else image.convert(mode))


@lru_cache(CACHED_CONVERSIONS)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of pixels of a mode to sRGB; None if the profile is sRGB or cannot be used.

    Threads may share a conversion: littlecms only reads it.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))  # refuses a wrong header, or over 100 tags
        if not _is_sound(profile, mode):
            return None
        conversion = ImageCms.ImageCmsTransform(
            opened,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGBA" if mode == "RGBA" else "RGB",
            # The usual choice for photographs: white stays white, and black becomes black.
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if _is_srgb(conversion) else conversion
    except Exception:  # broken profiles raise many exceptions, and littlecms may be absent; the pixels may be good
        return None


def _is_sound(profile: bytes, mode: str) -> bool:
    """Whether a profile is for pixels of a mode, and none of its color tables claims to be larger than the profile.

    littlecms reserves the memory that a table claims before it reads the table. For each of tens of thousands of
    colors it walks all processing elements ("mpet"), of which there may be any number; no camera writes them. The
    layouts are those of ICC.1:2022, sections 7 and 10.
    """
    if profile[12:16] not in CLASSES or profile[16:20] != SPACES[mode]:
        return False
    (tags,) = struct.unpack_from(">I", profile, 128)
    starts = (struct.unpack_from(">I", profile, tag + 4)[0] for tag in range(132, 132 + 12 * tags, 12))
    return all(_is_sound_tag(profile, start) for start in starts)


def _is_sound_tag(profile: bytes, start: int) -> bool:
    kind = profile[start : start + 4]
    if kind == b"mpet":
        return False
    if kind not in (b"mft1", b"mft2", b"mAB ", b"mBA "):
        return True  # no table of colors
    inputs, outputs, points = struct.unpack_from("BBB", profile, start + 8)
    sides = [points] * inputs
    if kind in (b"mAB ", b"mBA "):
        (table,) = struct.unpack_from(">I", profile, start + 24)
        sides = list(profile[start + table : start + table + inputs]) if table else []
    return bool(outputs * math.prod(sides) <= len(profile))


def _is_srgb(conversion: ImageCms.ImageCmsTransform) -> bool:
    if conversion.input_mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3)
    before = Image.fromarray(colors).convert(conversion.input_mode)
    after = np.asarray(conversion.apply(before)).astype(int)
    return bool(np.abs(after - np.asarray(before.convert(conversion.output_mode))).max() <= INVISIBLE)
