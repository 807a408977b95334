"""A map as one HTML file that needs no other file: `page.html` with its style, its script and the map's data."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np
from gramlet.embed.types import Layout, StyleMap

from gramlet_server.embed import thumbnails
from gramlet_server.embed.plot import NO_LABEL, label_colors
from gramlet_server.embed.stored import Frame


def page(style_map: StyleMap, jpegs: Sequence[bytes | None], frames: Sequence[Sequence[Frame]], title: str) -> bytes:
    """The file, in UTF-8. Its content security policy forbids every request to a host.

    Args:
        style_map: The map.
        jpegs: A thumbnail or None for each item.
        frames: The frames of each layout. The finished layout is added as the last frame.
        title: Empty: the map's id.
    """
    title = title or style_map.map_id
    data = json.dumps(_data(style_map, jpegs, frames, title), separators=(",", ":"), allow_nan=False)
    # In a script element only `<` is dangerous: it could begin the tag that ends the element.
    data = data.replace("<", "\\u003c")
    parts = {"title": html.escape(title), "style": _file("page.css"), "script": _file("page.js"), "data": data}
    # One pass, so that a title which looks like a placeholder stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html")).encode()


def _file(name: str) -> str:
    return resources.files("gramlet_server.embed").joinpath(name).read_text(encoding="utf-8")


def _data(
    style_map: StyleMap, jpegs: Sequence[bytes | None], frames: Sequence[Sequence[Frame]], title: str
) -> dict[str, Any]:
    colors = label_colors([item.label for item in style_map.places])
    names = list(colors)
    numbers = {name: number for number, name in enumerate(names)}
    sheets = thumbnails.paste(jpegs)
    return {
        "title": title,
        "dimensions": style_map.settings.dimensions,
        "ids": [item.id for item in style_map.places],
        "labels": [numbers.get(item.label, -1) for item in style_map.places],
        "names": names,
        "colors": list(colors.values()),
        "noLabel": NO_LABEL,
        "sheets": [f"data:image/jpeg;base64,{_base64(sheet)}" for sheet in sheets.jpegs],
        "cell": sheets.cell,
        "columns": sheets.columns,
        "rows": sheets.rows,
        "sizes": [side for size in sheets.sizes for side in size],
        "layouts": [_layout(style_map, *both) for both in zip(style_map.layouts, frames, strict=True)],
        "facts": _facts(style_map),
        "notes": list(style_map.notes),
    }


def _layout(style_map: StyleMap, layout: Layout, frames: Sequence[Frame]) -> dict[str, Any]:
    name = f"perplexity {layout.perplexity:g}" if layout.perplexity else style_map.settings.method.value.upper()
    last = Frame(style_map.settings.tsne.iterations, layout.kl_divergence, layout.coordinates)
    # The finished layout takes the place of a frame of the last iteration: it may have been aligned since.
    shown = [frame for frame in frames if frame.iteration < last.iteration] + [last]
    quality = {key: value for key, value in asdict(layout.quality).items() if value is not None}
    return {"name": name, "quality": quality, "frames": [_frame(frame) for frame in shown]}


def _frame(frame: Frame) -> dict[str, Any]:
    """The coordinates as 16-bit fractions of a cube (its lowest corner and its side): all x, then all y, then all z."""
    low = frame.coordinates.min(axis=0)
    side = max(float(np.ptp(frame.coordinates, axis=0).max()), 1e-12)
    fractions = np.round((frame.coordinates - low) / side * 65535).astype("<u2")
    return {
        "iteration": frame.iteration,
        "kl": round(float(frame.kl_divergence), 4),
        "low": [float(value) for value in low],
        "side": side,
        "data": _base64(np.ascontiguousarray(fractions.T).tobytes()),
    }


def _facts(style_map: StyleMap) -> list[list[str]]:
    settings, measured = style_map.settings, style_map.measured
    descriptor = f"{settings.descriptor.value} of {', '.join(settings.stages)}" if settings.stages else "given vectors"
    return [
        ["items", f"{len(style_map.places):,}"],
        ["descriptor", f"{descriptor}, {measured.descriptor_size:,} elements"],
        ["distance", f"{settings.metric.value}, {measured.exactness.value}, error {measured.rms_error:.1e}"],
        ["method", f"{settings.method.value}, seed {settings.seed}"],
        ["network", style_map.backbone or "none"],
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
