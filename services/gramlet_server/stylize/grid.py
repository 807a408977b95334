"""The picture of a sweep: content and styles, and under them the cells in rows and columns with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gramlet.types import Pixels
from PIL import Image, ImageDraw, ImageFont

GAP = 8
"""Pixels between pictures and labels."""

INK = "black"
PAPER = "white"


def draw(
    cells: Sequence[Sequence[Pixels]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    content: Pixels,
    styles: Sequence[Pixels],
) -> Pixels:
    """Cells of one size, (H, W, 3) each, with labels; all as one picture.

    Args:
        cells: By row, then by column.
        rows: The deepest style stage of each row.
        columns: Content weight / style weight of each column.
        content: The content picture.
        styles: The style pictures.
    """
    height, width = cells[0][0].shape[:2]
    font = ImageFont.load_default(max(12, min(height, width) // 14))
    line = _height(font) + GAP
    left = GAP + max(_width(font, text) for text in [*rows, "stages up to"]) + GAP
    sources = [("content", content), *((_style_name(i, styles), style) for i, style in enumerate(styles))]
    shown = [(name, _of_height(picture, height)) for name, picture in sources]

    top = GAP + line + height + GAP + 2 * line  # of the first row of cells
    across = max(
        len(columns) * (width + GAP),
        sum(max(picture.width, _width(font, name)) + GAP for name, picture in shown),
        _width(font, _RATIO) + GAP,
    )
    sheet = Image.new("RGB", (left + across, top + len(rows) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)

    at = left
    for name, picture in shown:
        pen.text((at, GAP), name, INK, font)
        sheet.paste(picture, (at, GAP + line))
        at += max(picture.width, _width(font, name)) + GAP

    pen.text((left, top - 2 * line), _RATIO, INK, font)
    pen.text((GAP, top - line), "stages up to", INK, font)
    for column, text in enumerate(columns):
        x = left + column * (width + GAP)
        pen.text((x + width // 2, top - line), text, INK, font, anchor="ma")
    for row, text in enumerate(rows):
        y = top + row * (height + GAP)
        pen.text((left - GAP, y + height // 2), text, INK, font, anchor="rm")
        for column, cell in enumerate(cells[row]):
            sheet.paste(Image.fromarray(cell), (left + column * (width + GAP), y))
    return np.asarray(sheet)


_RATIO = "content weight / style weight"


def _style_name(index: int, styles: Sequence[Pixels]) -> str:
    return f"style {index + 1}" if len(styles) > 1 else "style"


def _of_height(picture: Pixels, height: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return round(font.getlength(text))


def _height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getbbox("Ag")[3])
