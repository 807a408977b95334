"""Picture files for tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.types import Limits, Pixels
from gramlet_server.pictures.decode import decode
from PIL import Image

LIMITS = Limits()


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


def write_two_classes(folder: Path, count: int, size: tuple[int, int]) -> None:
    """So many pictures of each of two classes, red/*.png and blue/*.png, each with noise of its own.

    Args:
        folder: Where to.
        count: Of each class.
        size: Height and width.
    """
    random = np.random.default_rng(0)
    for label, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / label).mkdir()
        for index in range(count):
            pixels = np.clip(random.normal(color, 30, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}{index}.png")
