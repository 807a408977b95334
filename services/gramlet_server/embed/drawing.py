"""Drawings of stored maps."""

from __future__ import annotations

from dataclasses import dataclass

from gramlet.embed.drawings import WIDTHS, DrawingForm, MapDrawing
from gramlet.embed.types import StyleMap
from gramlet.errors import InvalidInput, counted

from gramlet_server.embed import stored, thumbnails
from gramlet_server.embed.stored import FRAMES
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.runs.store import Store

_DRAWING_BYTES = 12
"""For each pixel of a square panel: its canvas, and the copies while it becomes a file."""
_PAGE_BYTES = 200
"""For each item in each frame of a page: coordinates, their text, and the copies while they become a file."""


@dataclass(frozen=True)
class Drawing:
    """A file; its type is `image/png` or `text/html`."""

    content_type: str
    data: bytes


def draw(store: Store, wanted: MapDrawing) -> Drawing:
    """Draws a finished map.

    Raises:
        NotFound: There is no finished map of that name.
        InvalidInput: It has no such layout, or the width is out of range.
    """
    style_map = stored.get_map(store, wanted.map_id)
    if wanted.layout is not None and wanted.layout >= len(style_map.layouts):
        raise InvalidInput(f"the map has {counted(len(style_map.layouts), 'layout')}, counted from 0", field="layout")
    if not WIDTHS[0] <= wanted.width <= WIDTHS[1]:
        raise InvalidInput(f"between {WIDTHS[0]} and {WIDTHS[1]} pixels", field="width")
    field = "map_id" if wanted.form is DrawingForm.PAGE else "width"
    with PROCESS.reserve(_drawing_bytes(wanted, style_map), field):
        return _drawn(store, wanted, style_map)


def _drawing_bytes(wanted: MapDrawing, style_map: StyleMap) -> int:
    items, layouts = len(style_map.places), len(style_map.layouts)
    if wanted.form is DrawingForm.PAGE:
        return items * (_PAGE_BYTES * layouts * (FRAMES + 1) + 4 * thumbnails.side_for(items) ** 2)
    panels = layouts if wanted.layout is None else 1
    return panels * _DRAWING_BYTES * wanted.width**2 + items * thumbnails.side_for(items) ** 2


def _drawn(store: Store, wanted: MapDrawing, style_map: StyleMap) -> Drawing:
    # Imported here because both load matplotlib, which takes a second and which no other call needs.
    from gramlet_server.embed import page, plot

    run = stored.open_run(store, wanted.map_id)
    jpegs = stored.get_thumbnails(run)
    if wanted.form is DrawingForm.PAGE:
        return Drawing("text/html", page.page(style_map, jpegs, stored.get_frames(run, style_map), wanted.title))
    draw_png = plot.scatter if wanted.form is DrawingForm.SCATTER else plot.grid
    return Drawing("image/png", draw_png(style_map, jpegs, wanted.layout, wanted.width, wanted.title))
