"""Maps as PNG files: the pictures themselves at their places, or on a grid."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from gramlet.embed.types import StyleMap
from gramlet.folders import natural_key
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from gramlet_server.embed import thumbnails
from gramlet_server.embed.tsne import Floats

# Okabe and Ito's colours (2008), told apart by colour-blind eyes, then darker and lighter ones for further labels.
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b2a300", "#7f3c8d"),
    *("#1b4f72", "#8a5a00", "#00543d", "#7d3300", "#7a3e63", "#2b7cab", "#6b6200", "#4a4a4a"),
)
NO_LABEL = "#8a8a8a"
_DPI = 100
_MARGIN = 0.03
_PICTURES_COVER = 0.4
_SMALLEST = 20
_ASSIGNED_AT_ONCE = 1500


@dataclass(frozen=True)
class _Panel:
    """One layout to be drawn: (N, 2) places in pixels of a canvas (width, height), the greatest depth last."""

    places: Floats
    width: int
    height: int
    caption: str


DrawPanel = Callable[[Axes, _Panel, Sequence[bytes | None], Sequence[str]], None]


def label_colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label, in alphabetical order. More than 16 labels share colours."""
    names = sorted({label for label in labels if label}, key=natural_key)
    return {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}


def scatter(style_map: StyleMap, jpegs: Sequence[bytes | None], layout: int | None, width: int, title: str) -> bytes:
    """A PNG with every picture at its place, moved aside where it would hide another.

    A moved picture is tied to its place by a line. Where there are too many pictures to show, the others are dots.

    Args:
        style_map: The map.
        jpegs: A thumbnail or None for each item.
        layout: Which one; None: all in a row.
        width: Of each layout, in pixels.
        title: Or empty.
    """
    panels = [_panel(style_map, number, width) for number in _chosen(style_map, layout)]
    return _draw(style_map, jpegs, panels, title, _scatter_panel)


def grid(style_map: StyleMap, jpegs: Sequence[bytes | None], layout: int | None, width: int, title: str) -> bytes:
    """A PNG with the pictures on a regular grid, as near to their places as can be (linear assignment).

    Arguments as `scatter`.
    """
    panels = []
    for number in _chosen(style_map, layout):
        flat = _panel(style_map, number, width)
        cells, _, rows = grid_places(flat.places, flat.width / flat.height)
        side = width / (cells[:, 0].max() + 1)
        panels.append(_Panel((cells + 0.5) * side, width, int(np.ceil(rows * side)), flat.caption))
    return _draw(style_map, jpegs, panels, title, _grid_panel)


def grid_places(places: Floats, aspect: float) -> tuple[Floats, int, int]:
    """Cells (column, row) of a grid with at least N cells, one an item, near to the places (N, 2).

    Up to 1,500 items the sum of squared ways is the least possible; larger sets are first halved, again and again, at
    the median of their longer side.

    Returns:
        (N, 2) columns and rows, and the number of columns and of rows.
    """
    items = len(places)
    columns = max(1, min(items, round(np.sqrt(items * aspect))))
    rows = -(-items // columns)
    cells = np.array([(column, rows - 1 - row) for row in range(rows) for column in range(columns)], float)
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (places - low) / np.maximum(high - low, 1e-12) * [columns - 1, rows - 1]
    assigned = np.empty(items, np.intp)
    # The cells that stay empty are the last of the bottom row.
    _assign(unit, cells[:items], np.arange(items), np.arange(items), assigned)
    return cells[assigned], columns, rows


def _assign(
    places: Floats,
    cells: Floats,
    items: np.ndarray[tuple[int], np.dtype[np.intp]],
    free: np.ndarray[tuple[int], np.dtype[np.intp]],
    assigned: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> None:
    """Gives each of `items` one of as many `free` cells."""
    if len(items) <= _ASSIGNED_AT_ONCE:
        ways = ((places[items, None, :] - cells[None, free, :]) ** 2).sum(axis=2)
        chosen_items, chosen_cells = linear_sum_assignment(ways)
        assigned[items[chosen_items]] = free[chosen_cells]
        return
    axis = int(np.ptp(cells[free], axis=0).argmax())
    items = items[np.argsort(places[items, axis], kind="stable")]
    free = free[np.argsort(cells[free, axis], kind="stable")]
    half = len(items) // 2
    _assign(places, cells, items[:half], free[:half], assigned)
    _assign(places, cells, items[half:], free[half:], assigned)


def spread(places: Floats, size: float, width: float, height: float, rounds: int = 300) -> Floats:
    """Moves squares of side `size` apart until hardly any two overlap, each as little as need be.

    Every overlapping pair is pushed apart along the axis where it overlaps less, and all stay on the canvas.
    """
    moved = places.copy()
    margin = size / 2
    # Items at one place have no direction to part in: a fixed trace of noise gives them one.
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
    places = (flat - low - extent / 2) * scale + [width / 2, height / 2]
    name = f"perplexity {layout.perplexity:g}" if layout.perplexity else style_map.settings.method.value.upper()
    return _Panel(places, width, height, f"{name}   ·   trustworthiness {layout.quality.trustworthiness:.3f}")


def _flat(coordinates: Floats) -> Floats:
    """(N, 2), whatever the map's dimensions. Three are looked at from a corner."""
    if coordinates.shape[1] == 1:
        return np.column_stack([coordinates, np.zeros(len(coordinates))])
    if coordinates.shape[1] == 2:
        return coordinates
    across, up = np.array([0.82, -0.57, 0.0]), np.array([0.24, 0.34, 0.91])
    return np.column_stack([coordinates @ across, coordinates @ up])


def _size(items: int, width: float, height: float) -> float:
    """Side in pixels of a picture, so that all together cover part of the canvas."""
    return float(np.clip(np.sqrt(_PICTURES_COVER * width * height / items), _SMALLEST, width / 9))


def _draw(
    style_map: StyleMap, jpegs: Sequence[bytes | None], panels: Sequence[_Panel], title: str, draw_panel: DrawPanel
) -> bytes:
    colors = label_colors([place.label for place in style_map.places])
    top = (54 if title else 0) + (40 if colors else 0) + 12
    bottom = 44
    gap = 28
    width = sum(panel.width for panel in panels) + gap * (len(panels) + 1)
    height = max(panel.height for panel in panels) + top + bottom
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left = gap
    for panel in panels:
        axes = figure.add_axes((left / width, bottom / height, panel.width / width, panel.height / height))
        axes.set(xlim=(0, panel.width), ylim=(0, panel.height))
        axes.set_axis_off()
        draw_panel(axes, panel, jpegs, [colors.get(place.label, NO_LABEL) for place in style_map.places])
        figure.text(
            (left + panel.width / 2) / width,
            14 / height,
            panel.caption,
            ha="center",
            size=11,
            color="#444",
            va="bottom",
        )
        left += panel.width + gap
    if title:
        figure.text(gap / width, 1 - 14 / height, title, ha="left", va="top", size=19, color="#111", parse_math=False)
    if colors:
        _legend(figure, colors, 1 - (50 if title else 8) / height)
    data = io.BytesIO()
    canvas.print_png(data)  # type: ignore[no-untyped-call]
    return data.getvalue()


def _legend(figure: Figure, colors: dict[str, str], top: float) -> None:
    shown = list(colors.items())[:24]
    handles = [Line2D([], [], marker="s", linestyle="", markersize=11, color=color) for _, color in shown]
    names = [name if len(name) <= 28 else f"{name[:27]}…" for name, _ in shown]
    legend = figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.008, top),
        ncols=12,
        frameon=False,
        fontsize=12,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _scatter_panel(axes: Axes, panel: _Panel, jpegs: Sequence[bytes | None], colors: Sequence[str]) -> None:
    size = _size(len(panel.places), panel.width, panel.height)
    pictured = _pictured(panel.places, jpegs, size, panel.width, panel.height)
    dots = np.setdiff1d(np.arange(len(panel.places)), pictured)
    axes.scatter(
        panel.places[dots, 0],
        panel.places[dots, 1],
        s=34,
        c=[colors[i] for i in dots],
        alpha=0.8,
        linewidths=0,
        zorder=1,
    )
    if not len(pictured):
        return
    moved = spread(panel.places[pictured], size * 1.06, panel.width, panel.height)
    for (x, y), (to_x, to_y), item in zip(panel.places[pictured], moved, pictured.tolist(), strict=True):
        if max(abs(x - to_x), abs(y - to_y)) > size / 2:
            axes.plot([x, to_x], [y, to_y], color=colors[item], alpha=0.45, linewidth=0.8, zorder=2)
            axes.plot([x], [y], ".", color=colors[item], markersize=4, zorder=2)
        _paste(axes, jpegs[item], (to_x, to_y), size, colors[item])


def _grid_panel(axes: Axes, panel: _Panel, jpegs: Sequence[bytes | None], colors: Sequence[str]) -> None:
    size = 2 * min(panel.places[:, 0].min(), panel.places[:, 1].min())
    for (x, y), jpeg, color in zip(panel.places, jpegs, colors, strict=True):
        _paste(axes, jpeg, (x, y), size, color)


def _pictured(
    places: Floats, jpegs: Sequence[bytes | None], size: float, width: float, height: float
) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The items whose pictures are shown: all, or one in each square of the canvas where those are too many."""
    have = np.array([i for i, jpeg in enumerate(jpegs) if jpeg is not None], np.intp)
    if len(have) * size * size <= 0.8 * width * height:
        return have
    squares = np.floor(places[have] / size).astype(int)
    _, first = np.unique(squares, axis=0, return_index=True)
    return have[np.sort(first)]


def _paste(axes: Axes, jpeg: bytes | None, place: tuple[float, float], size: float, color: str) -> None:
    frame = max(2.0, size / 20)
    inner = max(int(size - 2 * frame), 4)
    if jpeg is None:
        axes.plot([place[0]], [place[1]], "o", color=color, markersize=inner * 0.4, zorder=3)
        return
    picture = thumbnails.decode(jpeg)
    scale = inner / max(picture.size)
    fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    pixels = np.asarray(picture.resize(fitted, Image.Resampling.LANCZOS))
    box = AnnotationBbox(
        OffsetImage(pixels, dpi_cor=False, resample=False),
        place,
        frameon=True,
        pad=0,
        bboxprops={"edgecolor": color, "linewidth": frame * 72 / _DPI, "boxstyle": "square,pad=0"},
        zorder=3,
    )
    axes.add_artist(box)
