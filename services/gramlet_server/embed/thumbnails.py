"""Thumbnails for drawings: one JPEG for each item, packed into a blob, or pasted into sheets."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from gramlet.types import Array
from PIL import Image

from gramlet_server.runs.store import intact

_SHEET_SIDE = 4096
BYTES_FOR_ALL = 48 * 1024 * 1024


def side_for(count: int) -> int:
    """The longest side in pixels of each of `count` thumbnails: smaller for more, so that all take about 50 MiB."""
    for side in (224, 160, 128, 96, 64):
        if count * side * side * 0.35 <= BYTES_FOR_ALL:
            return side
    return 48


def encode(pixels: Array, side: int) -> bytes:
    """A JPEG of a picture (3, H, W) in 0..1, with its longest side reduced to at most `side` pixels."""
    image = Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return data.getvalue()


def pack(jpegs: Iterable[bytes | None]) -> bytes:
    """All thumbnails in one blob, each after its length; None for an item without a picture."""
    return b"".join(struct.pack("<I", len(jpeg or b"")) + (jpeg or b"") for jpeg in jpegs)


def unpack(blob: bytes) -> list[bytes | None]:
    """The thumbnails of a blob that `pack` made."""
    jpegs: list[bytes | None] = []
    position = 0
    while position < len(blob):
        (size,) = struct.unpack_from("<I", blob, position)
        position += 4
        jpegs.append(blob[position : position + size] or None)
        position += size
    return jpegs


def decode(jpeg: bytes) -> Image.Image:
    """The picture of a thumbnail, RGB.

    Raises:
        DataLoss: It is damaged.
    """
    with intact("a thumbnail"):
        return Image.open(io.BytesIO(jpeg), formats=("JPEG",)).convert("RGB")


@dataclass(frozen=True)
class Sheets:
    """Thumbnails pasted side by side, row by row, into as few JPEGs as possible.

    Attributes:
        jpegs: The sheets.
        cell: Side in pixels of the square cell of each thumbnail, which lies in the cell's top left corner.
        columns: Cells in a row.
        rows: Rows of a full sheet.
        sizes: (width, height) of each item's thumbnail; (0, 0) where it has none.
    """

    jpegs: tuple[bytes, ...]
    cell: int
    columns: int
    rows: int
    sizes: tuple[tuple[int, int], ...]


def paste(jpegs: Sequence[bytes | None]) -> Sheets:
    """Pastes thumbnails into sheets: item i into cell i modulo the number of cells in a sheet."""
    images = [None if jpeg is None else decode(jpeg) for jpeg in jpegs]
    sizes = tuple((0, 0) if image is None else image.size for image in images)
    cell = max((max(size) for size in sizes), default=0)
    if cell == 0:
        return Sheets((), 1, 1, 1, sizes)
    columns = min(_SHEET_SIDE // cell, int(np.ceil(np.sqrt(len(images)))))
    rows = min(_SHEET_SIDE // cell, -(-len(images) // columns))
    sheets = []
    for start in range(0, len(images), columns * rows):
        members = images[start : start + columns * rows]
        sheet = Image.new("RGB", (columns * cell, -(-len(members) // columns) * cell))
        for cell_number, image in enumerate(members):
            if image is not None:
                sheet.paste(image, (cell_number % columns * cell, cell_number // columns * cell))
        data = io.BytesIO()
        sheet.save(data, "JPEG", quality=82)
        sheets.append(data.getvalue())
    return Sheets(tuple(sheets), cell, columns, rows, sizes)
