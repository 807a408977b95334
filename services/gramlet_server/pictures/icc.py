"""ICC profiles: what the levels of a file mean as colors, and those colors in sRGB, in which everything here is.

A profile is as hostile as the file that holds it. One that is broken, made for other pixels than the file's, or that
would cost littlecms more than a profile should, counts as none.
"""

from __future__ import annotations

import io
import math
import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MOST_BYTES = 4 * 2**20
"""Larger profiles count as none; those of printing presses have up to 3 MB."""

REMEMBERED = 16
"""Conversions kept. Pictures of one camera or one studio have one profile."""

UNSEEN = 2
"""A profile that moves no color by more levels is sRGB: those of sRGB itself are rounded in many ways."""

CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
"""Profiles of devices and of color spaces. The others connect profiles, or name single colors."""

SPACES = {"L": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}
"""What profiles call the modes of pixels."""


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """A picture with its colors in sRGB: RGBA of RGBA, with the same alpha, and RGB of all other modes.

    Args:
        image: Loaded, in a mode that Pillow converts to RGB.
        profile: Its ICC profile, as Pillow found it. Without one that can be used, levels are as Pillow converts them.
    """
    shown = _shown(image.mode)
    if isinstance(profile, bytes) and len(profile) <= MOST_BYTES:  # a TIFF's may be anything
        gray = image.mode in ("1", "L") and profile[16:20] == SPACES["L"]  # gray may have a profile of RGB as well
        image = _in_mode(image, "L" if gray else image.mode if image.mode == "CMYK" else shown)
        if conversion := _conversion(profile, image.mode):
            return conversion.apply(image)
    return _in_mode(image, shown)


def _shown(mode: str) -> str:
    return "RGBA" if mode == "RGBA" else "RGB"


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


@lru_cache(REMEMBERED)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From pixels of that mode and profile to sRGB; None where nothing is to do, or nothing can be done.

    Threads may share one: littlecms only reads it.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))  # refused if its header is wrong or has over 100 tags
        if not _is_sound(profile, mode):
            return None
        conversion = ImageCms.ImageCmsTransform(
            opened,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            _shown(mode),
            # What photographs are printed and shown with; white stays white, and black becomes black.
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if _is_srgb(conversion) else conversion
    except Exception:  # broken in any of many ways, or there is no littlecms: that says nothing about the pixels
        return None


def _is_sound(profile: bytes, mode: str) -> bool:
    """Whether a profile is for such pixels, and its tables of colors are no larger than itself.

    littlecms reserves what a table claims before it reads it, and walks any number of processing elements ("mpet",
    which no camera writes) for each of tens of thousands of colors. The layouts are of ICC.1:2022, sections 7 and 10.
    """
    if profile[12:16] not in CLASSES or profile[16:20] != SPACES[mode]:
        return False
    (tags,) = struct.unpack_from(">I", profile, 128)
    for tag in range(132, 132 + 12 * tags, 12):
        (start,) = struct.unpack_from(">I", profile, tag + 4)
        kind = profile[start : start + 4]
        if kind == b"mpet":
            return False
        if kind in (b"mft1", b"mft2", b"mAB ", b"mBA "):
            inputs, outputs, points = struct.unpack_from("BBB", profile, start + 8)
            sides = [points] * inputs
            if kind in (b"mAB ", b"mBA "):
                (table,) = struct.unpack_from(">I", profile, start + 24)
                sides = list(profile[start + table : start + table + inputs]) if table else []
            if outputs * math.prod(sides) > len(profile):
                return False
    return True


def _is_srgb(conversion: ImageCms.ImageCmsTransform) -> bool:
    if conversion.input_mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3)
    before = Image.fromarray(every).convert(conversion.input_mode)
    after = np.asarray(conversion.apply(before)).astype(int)
    return bool(np.abs(after - np.asarray(before.convert(conversion.output_mode))).max() <= UNSEEN)
