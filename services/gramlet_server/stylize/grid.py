"""The picture of a sweep: content and styles at the top, and below them the cells in labeled rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gramlet.types import Pixels
from PIL import Image, ImageDraw, ImageFont

GAP = 8
"""Pixels between pictures and labels."""

INK = "black"
PAPER = "white"

_RATIO = "content weight / style weight"
_DEEPEST = "stages up to"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
    font = ImageFont.load_default(max(12, min(height, width) // 14))
    line = _height(font) + GAP
    sources = [("content", content), *((_style_name(i, styles), style) for i, style in enumerate(styles))]
    shown = [(name, _of_height(picture, height)) for name, picture in sources]

    left = GAP + max(_width(font, text) for text in [*rows, _DEEPEST]) + GAP  # of the first column of cells
    top = GAP + line + height + GAP + 2 * line  # of the first row of cells
    sheet_width = left + max(
        len(columns) * (width + GAP),
        sum(max(picture.width, _width(font, name)) + GAP for name, picture in shown),
        _width(font, _RATIO) + GAP,
    )
    sheet = Image.new("RGB", (sheet_width, top + len(rows) * (height + GAP)), PAPER)
    _draw_sources(sheet, shown, left, line, font)
    _draw_labels(sheet, rows, columns, (left, top), (width, height), line, font)
    for row, pictures in enumerate(cells):
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + column * (width + GAP), top + row * (height + GAP)))
    return np.asarray(sheet)


def _draw_sources(
    sheet: Image.Image, shown: Sequence[tuple[str, Image.Image]], left: int, line: int, font: _Font
) -> None:
    pen = ImageDraw.Draw(sheet)
    for name, picture in shown:
        pen.text((left, GAP), name, INK, font)
        sheet.paste(picture, (left, GAP + line))
        left += max(picture.width, _width(font, name)) + GAP


def _draw_labels(
    sheet: Image.Image,
    rows: Sequence[str],
    columns: Sequence[str],
    corner: tuple[int, int],
    cell: tuple[int, int],
    line: int,
    font: _Font,
) -> None:
    pen = ImageDraw.Draw(sheet)
    left, top = corner
    width, height = cell
    pen.text((left, top - 2 * line), _RATIO, INK, font)
    pen.text((GAP, top - line), _DEEPEST, INK, font)
    for column, text in enumerate(columns):
        pen.text((left + column * (width + GAP) + width // 2, top - line), text, INK, font, anchor="ma")
    for row, text in enumerate(rows):
        pen.text((left - GAP, top + row * (height + GAP) + height // 2), text, INK, font, anchor="rm")


def _style_name(index: int, styles: Sequence[Pixels]) -> str:
    return f"style {index + 1}" if len(styles) > 1 else "style"


def _of_height(picture: Pixels, height: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)


def _width(font: _Font, text: str) -> int:
    return round(font.getlength(text))


def _height(font: _Font) -> int:
    return round(font.getbbox("Ag")[3])
