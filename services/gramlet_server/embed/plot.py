"""Maps as PNG files: the pictures at their points of the layout, or on a grid."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from gramlet.embed.types import StyleMap
from gramlet.errors import counted
from gramlet.folders import natural_key
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from gramlet_server.embed import thumbnails
from gramlet_server.embed.geometry import Floats
from gramlet_server.pictures import text

# The palette of Okabe and Ito (2008), which color-blind people can distinguish; then darker shades for further labels.
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b2a300", "#7f3c8d"),
    *("#1b4f72", "#8a5a00", "#00543d", "#7d3300", "#7a3e63", "#2b7cab", "#6b6200", "#4a4a4a"),
)
NO_LABEL = "#8a8a8a"
_DPI = 100
_GAP = 28
_TITLE_SIZE, _LEGEND_SIZE, _CAPTION_SIZE = 26, 16, 15
_SWATCH = 19
_LEGEND_ROWS = 24
_MARGIN = 0.03
_PICTURES_COVER = 0.4
_SMALLEST = 20
_ASSIGNED_AT_ONCE = 1500


@dataclass(frozen=True)
class _Panel:
    """One layout to draw: the points (N, 2) of its items, in pixels of a canvas (width, height), and its caption."""

    points: Floats
    width: int
    height: int
    caption: str


DrawPanel = Callable[[Axes, _Panel, Sequence[bytes | None], Sequence[str]], None]


def label_colors(labels: Sequence[str]) -> dict[str, str]:
    """A color for each label, in alphabetical order. More than 16 labels share colors."""
    names = sorted({label for label in labels if label}, key=natural_key)
    return {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}


def scatter(style_map: StyleMap, jpegs: Sequence[bytes | None], layout: int | None, width: int, title: str) -> bytes:
    """A PNG with every picture at its point, or next to it where pictures would hide each other.

    A line connects a picture that was moved with its point. If there is not enough room for all pictures, some items
    are drawn as dots.

    Args:
        style_map: The map.
        jpegs: A thumbnail or None for each item.
        layout: The number of the layout; None: all of them in a row.
        width: Of each layout, in pixels.
        title: Empty for none.
    """
    panels = [_panel(style_map, number, width) for number in _chosen(style_map, layout)]
    return _draw(style_map, jpegs, panels, title, _scatter_panel)


def grid(style_map: StyleMap, jpegs: Sequence[bytes | None], layout: int | None, width: int, title: str) -> bytes:
    """A PNG with the pictures on a regular grid, each as close to its point as possible (linear assignment).

    Arguments as for `scatter`.
    """
    panels = []
    for number in _chosen(style_map, layout):
        flat = _panel(style_map, number, width)
        cells, _, rows = assign_cells(flat.points, flat.width / flat.height)
        side = width / (cells[:, 0].max() + 1)
        panels.append(_Panel((cells + 0.5) * side, width, int(np.ceil(rows * side)), flat.caption))
    return _draw(style_map, jpegs, panels, title, _grid_panel)


def assign_cells(points: Floats, aspect: float) -> tuple[Floats, int, int]:
    """Gives every item a cell of its own in a grid, close to its point.

    Up to 1,500 items, the sum of squared distances between points and cells is the least possible. A larger set is
    split at the median of its longer side until each part is that small.

    Args:
        points: (N, 2).
        aspect: Width of the grid divided by its height.

    Returns:
        The column and row of each item's cell, (N, 2); the number of columns; the number of rows.
    """
    items = len(points)
    columns = max(1, min(items, round(np.sqrt(items * aspect))))
    rows = -(-items // columns)
    cells = np.array([(column, rows - 1 - row) for row in range(rows) for column in range(columns)], float)
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / np.maximum(high - low, 1e-12) * [columns - 1, rows - 1]
    assigned = np.empty(items, np.intp)
    # The cells that stay empty are at the end of the bottom row.
    _assign(unit, cells[:items], np.arange(items), np.arange(items), assigned)
    return cells[assigned], columns, rows


def _assign(
    points: Floats,
    cells: Floats,
    items: np.ndarray[tuple[int], np.dtype[np.intp]],
    free: np.ndarray[tuple[int], np.dtype[np.intp]],
    assigned: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> None:
    """Writes one of the `free` cells for each of `items`, which are as many, into `assigned`."""
    if len(items) <= _ASSIGNED_AT_ONCE:
        distances = ((points[items, None, :] - cells[None, free, :]) ** 2).sum(axis=2)
        chosen_items, chosen_cells = linear_sum_assignment(distances)
        assigned[items[chosen_items]] = free[chosen_cells]
        return
    axis = int(np.ptp(cells[free], axis=0).argmax())
    items = items[np.argsort(points[items, axis], kind="stable")]
    free = free[np.argsort(cells[free, axis], kind="stable")]
    half = len(items) // 2
    _assign(points, cells, items[:half], free[:half], assigned)
    _assign(points, cells, items[half:], free[half:], assigned)


def spread(points: Floats, size: float, width: float, height: float, rounds: int = 300) -> Floats:
    """Moves squares apart until hardly any two overlap, each as little as possible.

    Every overlapping pair is pushed apart along the axis on which it overlaps less. All squares stay on the canvas.

    Args:
        points: (N, 2) centers of the squares, in pixels.
        size: Side of a square.
        width, height: Of the canvas.
        rounds: How often all overlapping pairs are pushed apart, at most.

    Returns:
        (N, 2) centers.
    """
    moved = points.copy()
    margin = size / 2
    # Items at the same point have no direction in which to move apart: a little fixed noise gives them one.
    moved += np.random.default_rng(0).normal(size=moved.shape) * 1e-3 * size
    for _ in range(rounds):
        pairs = cKDTree(moved).query_pairs(size * 0.98, p=np.inf, output_type="ndarray")
        if not len(pairs):
            break
        difference = moved[pairs[:, 1]] - moved[pairs[:, 0]]
        overlap = size - np.abs(difference)
        axis = overlap.argmin(axis=1)
        own = np.arange(len(pairs))
        push = np.zeros_like(difference)
        push[own, axis] = 0.3 * overlap[own, axis] * np.where(difference[own, axis] < 0, -1.0, 1.0)
        np.add.at(moved, pairs[:, 0], -push)
        np.add.at(moved, pairs[:, 1], push)
        np.clip(moved, margin, np.array([width, height]) - margin, out=moved)
    return moved


def _chosen(style_map: StyleMap, layout: int | None) -> list[int]:
    return list(range(len(style_map.layouts))) if layout is None else [layout]


def _panel(style_map: StyleMap, number: int, width: int) -> _Panel:
    layout = style_map.layouts[number]
    flat = _flat(np.asarray(layout.coordinates, float))
    low, extent = flat.min(axis=0), np.maximum(np.ptp(flat, axis=0), 1e-9)
    height = int(width * np.clip(extent[1] / extent[0], 0.3 if style_map.settings.dimensions == 1 else 0.6, 1.2))
    margin = _MARGIN * width + _size(len(flat), width, height) / 2
    scale = min((width - 2 * margin) / extent[0], (height - 2 * margin) / extent[1])
    points = (flat - low - extent / 2) * scale + [width / 2, height / 2]
    name = f"perplexity {layout.perplexity:g}" if layout.perplexity else style_map.settings.method.value.upper()
    return _Panel(points, width, height, f"{name}   ·   trustworthiness {layout.quality.trustworthiness:.3f}")


def _flat(coordinates: Floats) -> Floats:
    """Coordinates (N, 1), (N, 2) or (N, 3) as (N, 2). Three dimensions are seen from a corner of the cube."""
    if coordinates.shape[1] == 1:
        return np.column_stack([coordinates, np.zeros(len(coordinates))])
    if coordinates.shape[1] == 2:
        return coordinates
    across, up = np.array([0.82, -0.57, 0.0]), np.array([0.24, 0.34, 0.91])
    return np.column_stack([coordinates @ across, coordinates @ up])


def _size(items: int, width: float, height: float) -> float:
    """The side of a picture in pixels, chosen so that all together cover 40 % of the canvas."""
    return float(np.clip(np.sqrt(_PICTURES_COVER * width * height / items), _SMALLEST, width / 9))


def _draw(
    style_map: StyleMap, jpegs: Sequence[bytes | None], panels: Sequence[_Panel], title: str, draw_panel: DrawPanel
) -> bytes:
    """A PNG of the panels in a row, each above its caption, under the title and the legend."""
    colors = label_colors([item.label for item in style_map.places])
    color_of = [colors.get(item.label, NO_LABEL) for item in style_map.places]
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) + 1)
    legend = lay_out_legend(list(colors), width - 2 * _GAP)
    line = text.line_height(_LEGEND_SIZE)
    top = (text.line_height(_TITLE_SIZE) + 12 if title else 0) + legend.rows * line + 12
    bottom = text.line_height(_CAPTION_SIZE) + 14
    height = max(panel.height for panel in panels) + top + bottom
    sheet = _panels_drawn(panels, (width, height), bottom, draw_panel, jpegs, color_of)
    left = _GAP
    for panel in panels:
        caption = text.shortened(panel.caption, _CAPTION_SIZE, panel.width)
        middle = left + (panel.width - text.width(caption, _CAPTION_SIZE)) / 2
        text.draw(sheet, (middle, height - bottom + 4), caption, _CAPTION_SIZE, "#444444")
        left += panel.width + _GAP
    if title:
        text.draw(sheet, (_GAP, 10), text.shortened(title, _TITLE_SIZE, width - 2 * _GAP), _TITLE_SIZE, "#111111")
    _draw_legend(sheet, legend, colors, top - 6 - legend.rows * line)
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()


def _panels_drawn(
    panels: Sequence[_Panel],
    size: tuple[int, int],
    bottom: int,
    draw_panel: DrawPanel,
    jpegs: Sequence[bytes | None],
    colors: Sequence[str],
) -> Image.Image:
    """The sheet (width, height) with the panels, without any text."""
    width, height = size
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left = _GAP
    for panel in panels:
        axes = figure.add_axes((left / width, bottom / height, panel.width / width, panel.height / height))
        axes.set(xlim=(0, panel.width), ylim=(0, panel.height))
        axes.set_axis_off()
        draw_panel(axes, panel, jpegs, colors)
        left += panel.width + _GAP
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


@dataclass(frozen=True)
class Legend:
    """The entries of a legend: row, x, name, and the text that is shown for it. The last text says what is missing."""

    entries: tuple[tuple[int, int, str, str], ...]
    rows: int
    missing: str


def lay_out_legend(names: Sequence[str], width: int) -> Legend:
    """Puts all names into rows of at most `width` pixels.

    A name of more than half a row is shortened. If there are more than 24 rows, the last says how many are missing.
    """
    entries: list[tuple[int, int, str, str]] = []
    row = left = 0
    for number, name in enumerate(names):
        shown = text.shortened(name, _LEGEND_SIZE, width // 2)
        room = _SWATCH + text.width(shown, _LEGEND_SIZE) + 22
        if left and left + room > width:
            row, left = row + 1, 0
        if row == _LEGEND_ROWS:
            return Legend(tuple(entries), row + 1, f"and {counted(len(names) - number, 'more label')}")
        entries.append((row, left, name, shown))
        left += room
    return Legend(tuple(entries), row + 1 if entries else 0, "")


def _draw_legend(sheet: Image.Image, legend: Legend, colors: dict[str, str], top: int) -> None:
    pen, line = ImageDraw.Draw(sheet), text.line_height(_LEGEND_SIZE)
    for row, x, name, shown in legend.entries:
        left, y = _GAP + x, top + row * line
        pen.rectangle((left, y + 6, left + 12, y + 18), fill=colors[name])
        text.draw(sheet, (left + _SWATCH, y), shown, _LEGEND_SIZE, "#111111")
    if legend.missing:
        text.draw(sheet, (_GAP, top + (legend.rows - 1) * line), legend.missing, _LEGEND_SIZE, "#444444")


def _scatter_panel(axes: Axes, panel: _Panel, jpegs: Sequence[bytes | None], colors: Sequence[str]) -> None:
    size = _size(len(panel.points), panel.width, panel.height)
    pictured = _pictured(panel.points, jpegs, size, panel.width, panel.height)
    dots = np.setdiff1d(np.arange(len(panel.points)), pictured)
    axes.scatter(
        panel.points[dots, 0],
        panel.points[dots, 1],
        s=34,
        c=[colors[i] for i in dots],
        alpha=0.8,
        linewidths=0,
        zorder=1,
    )
    if not len(pictured):
        return
    moved = spread(panel.points[pictured], size * 1.06, panel.width, panel.height)
    for (x, y), (to_x, to_y), item in zip(panel.points[pictured], moved, pictured.tolist(), strict=True):
        if max(abs(x - to_x), abs(y - to_y)) > size / 2:
            axes.plot([x, to_x], [y, to_y], color=colors[item], alpha=0.45, linewidth=0.8, zorder=2)
            axes.plot([x], [y], ".", color=colors[item], markersize=4, zorder=2)
        _paste(axes, jpegs[item], (to_x, to_y), size, colors[item])


def _grid_panel(axes: Axes, panel: _Panel, jpegs: Sequence[bytes | None], colors: Sequence[str]) -> None:
    size = 2 * min(panel.points[:, 0].min(), panel.points[:, 1].min())
    for (x, y), jpeg, color in zip(panel.points, jpegs, colors, strict=True):
        _paste(axes, jpeg, (x, y), size, color)


def _pictured(
    points: Floats, jpegs: Sequence[bytes | None], size: float, width: float, height: float
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The items whose pictures are drawn: all, or one for each square of the canvas if those are too many."""
    have = np.array([i for i, jpeg in enumerate(jpegs) if jpeg is not None], np.intp)
    if len(have) * size * size <= 0.8 * width * height:
        return have
    squares = np.floor(points[have] / size).astype(int)
    _, first = np.unique(squares, axis=0, return_index=True)
    return have[np.sort(first)]


def _paste(axes: Axes, jpeg: bytes | None, point: tuple[float, float], size: float, color: str) -> None:
    frame = max(2.0, size / 20)
    inner = max(int(size - 2 * frame), 4)
    if jpeg is None:
        axes.plot([point[0]], [point[1]], "o", color=color, markersize=inner * 0.4, zorder=3)
        return
    picture = thumbnails.decode(jpeg)
    scale = inner / max(picture.size)
    fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = np.asarray(picture.resize(fitted, Image.Resampling.LANCZOS))
    box = AnnotationBbox(
        OffsetImage(pixels, dpi_cor=False, resample=False),
        point,
        frameon=True,
        pad=0,
        bboxprops={"edgecolor": color, "linewidth": frame * 72 / _DPI, "boxstyle": "square,pad=0"},
        zorder=3,
    )
    axes.add_artist(box)
