"""Contact sheets: pictures in rows, each with its name and its numbers, at their full size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

GAP = 6
CAPTION = 30
"""Pixels under a picture: two lines of text."""


@dataclass(frozen=True)
class Cell:
    """A picture and the lines under it."""

    picture: Image.Image
    caption: str


def contact_sheet(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """All cells on one picture, each column as wide as its widest."""
    columns = max(len(row) for row in rows)
    widths = [max(row[i].picture.width for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(cell.picture.height for cell in row) + CAPTION for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP * (columns + 1), sum(heights) + GAP * (len(rows) + 1)), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell.picture, (left, top))
            draw.text((left, top + cell.picture.height + 2), cell.caption, fill="black")
            left += width + GAP
        top += height + GAP
    return sheet
