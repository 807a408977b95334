"""How a map is to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DrawingForm(Enum):
    """A PNG with each picture at its place, a PNG with the pictures on a grid, or an HTML page."""

    SCATTER = "scatter"
    GRID = "grid"
    PAGE = "page"


WIDTHS = (200, 8000)
"""The lowest and the highest width of a drawing of one layout, in pixels."""


@dataclass(frozen=True)
class MapDrawing:
    """What to draw of which map.

    Attributes:
        form: The way of drawing.
        layout: For PNG: which, from 0; None: all of them in a row.
        width: For PNG: of one layout, in pixels.
        title: Empty: none on a PNG, the map's id on a page.
    """

    map_id: str
    form: DrawingForm = DrawingForm.SCATTER
    layout: int | None = None
    width: int = 1600
    title: str = ""
