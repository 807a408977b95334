"""What channels respond to, drawn: a sheet of a few channels, and the contact sheet of a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from gramlet.feature.see_types import SeeResult

CELL = 112
"""Side of a patch on a sheet of a few channels, in pixels."""
SMALL_CELL = 40
"""The same on a contact sheet."""
_GAP, _BETWEEN = 3, 16
_LABEL = 18
_BACKGROUND, _INK, _EMPTY = (255, 255, 255), (30, 30, 30), (235, 235, 235)


def channel_sheet(result: SeeResult) -> Image.Image:
    """A row for each channel: the optimized picture, the strongest patches, and their projections."""
    channels = list(dict.fromkeys([*result.patches, *result.optimized]))
    rows = [_channel_row(result, channel) for channel in channels]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _BACKGROUND)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _channel_row(result: SeeResult, channel: int) -> Image.Image:
    patches = result.patches.get(channel, ())
    most = max([len(each) for each in result.patches.values()], default=0)
    side = _side(max(1, math.ceil(math.sqrt(most))) if most else 3, CELL)
    parts: list[tuple[str, Image.Image]] = []
    if channel in result.optimized:
        optimized = result.optimized[channel]
        picture = optimized.image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        parts.append((f"optimized, mean activation {_shown(optimized.activation)}", picture))
    if most:
        strongest = f"{_shown(patches[0].activation)} to {_shown(patches[-1].activation)}" if patches else "no response"
        parts.append((f"patches, {strongest}", _grid([patch.image for patch in patches], most, CELL)))
    if any(patch.projection for each in result.patches.values() for patch in each):
        shown = [image for patch in patches if (image := patch.projection_image) is not None]
        parts.append(("their projections", _grid(shown, most, CELL)))
    width = sum(picture.width + _BETWEEN for _, picture in parts) + _BETWEEN
    row = Image.new("RGB", (width, side + 2 * _LABEL + _BETWEEN), _BACKGROUND)
    draw = ImageDraw.Draw(row)
    _write(draw, (_BETWEEN, 4), f"{result.stage}:{channel}", 14)
    left = _BETWEEN
    for label, picture in parts:
        _write(draw, (left, _LABEL + 3), label, 11)
        row.paste(picture, (left, 2 * _LABEL))
        left += picture.width + _BETWEEN
    return row


def contact_sheet(result: SeeResult) -> Image.Image:
    """The patches of each channel, the channels in rows, each under its number."""
    most = max([len(patches) for patches in result.patches.values()], default=1) or 1
    side = _side(math.ceil(math.sqrt(most)), SMALL_CELL)
    columns = math.ceil(math.sqrt(len(result.patches)))
    width, height = side + _BETWEEN // 2, side + _LABEL
    rows = math.ceil(len(result.patches) / columns)
    sheet = Image.new("RGB", (columns * width + _BETWEEN // 2, rows * height + _BETWEEN // 2), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (channel, patches) in enumerate(result.patches.items()):
        row, column = divmod(number, columns)
        left, top = _BETWEEN // 2 + column * width, row * height
        _write(draw, (left, top + 3), str(channel), 11)
        sheet.paste(_grid([patch.image for patch in patches], most, SMALL_CELL), (left, top + _LABEL))
    return sheet


def _grid(pictures: Sequence[Image.Image], most: int, cell: int) -> Image.Image:
    """Pictures in a square grid with room for so many."""
    columns = math.ceil(math.sqrt(most))
    side = _side(columns, cell)
    grid = Image.new("RGB", (side, side), _BACKGROUND)
    for number in range(most):
        row, column = divmod(number, columns)
        place = column * (cell + _GAP), row * (cell + _GAP)
        picture = _fitted(pictures[number], cell) if number < len(pictures) else None
        tile = Image.new("RGB", (cell, cell), _EMPTY)
        if picture is not None:
            tile.paste(picture, ((cell - picture.width) // 2, (cell - picture.height) // 2))
        grid.paste(tile, place)
    return grid


def _shown(activation: float) -> str:
    return f"{activation:,.0f}" if activation >= 1000 else f"{activation:.3g}"


def _side(columns: int, cell: int) -> int:
    return columns * (cell + _GAP) - _GAP


def _fitted(picture: Image.Image, cell: int) -> Image.Image:
    """A picture whose longest side fills a cell."""
    factor = cell / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int) -> None:
    draw.text(place, text, _INK, font=ImageFont.load_default(size))
