"""The picture of a sweep: content and styles at the top, and below them the cells in labeled rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gramlet.types import Pixels
from PIL import Image

from gramlet_server.pictures import text

GAP = 8
"""Pixels between pictures and labels."""

INK = "black"
PAPER = "white"

_RATIO = "content weight / style weight"
_DEEPEST = "stages up to"


def draw(
    cells: Sequence[Sequence[Pixels]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    content: Pixels,
    styles: Sequence[Pixels],
) -> Pixels:
    """Draws all pictures and labels as one picture, (H', W', 3) uint8.

    Args:
        cells: By row, then by column; all of one size (H, W, 3).
        rows: The deepest style stage of each row.
        columns: Content weight / style weight of each column.
        content: The content picture.
        styles: The style pictures.
    """
    height, width = cells[0][0].shape[:2]
    size = max(12, min(height, width) // 14)
    line = text.line_height(size)
    sources = [("content", content), *((_style_name(i, styles), style) for i, style in enumerate(styles))]
    shown = [(name, _of_height(picture, height)) for name, picture in sources]

    left = GAP + max(text.width(label, size) for label in [*rows, _DEEPEST]) + GAP  # of the first column of cells
    top = GAP + line + height + GAP + 2 * line  # of the first row of cells
    sheet_width = left + max(
        len(columns) * (width + GAP),
        sum(max(picture.width, text.width(name, size)) + GAP for name, picture in shown),
        text.width(_RATIO, size) + GAP,
    )
    sheet = Image.new("RGB", (sheet_width, top + len(rows) * (height + GAP)), PAPER)
    _draw_sources(sheet, shown, left, line, size)
    _draw_labels(sheet, rows, columns, (left, top), (width, height), line, size)
    for row, pictures in enumerate(cells):
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + column * (width + GAP), top + row * (height + GAP)))
    return np.asarray(sheet)


def _draw_sources(
    sheet: Image.Image, shown: Sequence[tuple[str, Image.Image]], left: int, line: int, size: int
) -> None:
    for name, picture in shown:
        text.draw(sheet, (left, GAP), name, size, INK)
        sheet.paste(picture, (left, GAP + line))
        left += max(picture.width, text.width(name, size)) + GAP


def _draw_labels(
    sheet: Image.Image,
    rows: Sequence[str],
    columns: Sequence[str],
    corner: tuple[int, int],
    cell: tuple[int, int],
    line: int,
    size: int,
) -> None:
    left, top = corner
    width, height = cell
    text.draw(sheet, (left, top - 2 * line), _RATIO, size, INK)
    text.draw(sheet, (GAP, top - line), _DEEPEST, size, INK)
    for column, label in enumerate(columns):
        middle = left + column * (width + GAP) + width // 2
        text.draw(sheet, (middle - text.width(label, size) / 2, top - line), label, size, INK)
    for row, label in enumerate(rows):
        right, middle = left - GAP, top + row * (height + GAP) + height // 2
        text.draw(sheet, (right - text.width(label, size), middle - line / 2), label, size, INK)


def _style_name(index: int, styles: Sequence[Pixels]) -> str:
    return f"style {index + 1}" if len(styles) > 1 else "style"


def _of_height(picture: Pixels, height: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)
