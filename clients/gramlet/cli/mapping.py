"""What `embed` and `maps` have in common: values as JSON, and maps as text."""

from __future__ import annotations

from typing import Any

from gramlet.embed.types import StyleMap
from gramlet.errors import counted
from gramlet.json_codec import plain

_DIGITS = 5
_FEWEST_MEASURED = 3  # of one or two items every map keeps all neighbors


def as_json(value: Any) -> Any:
    """A dataclass as plain values; None is left out, coordinates have 5 decimal places."""
    return plain(value, keep_none=False, digits=_DIGITS)


def describe(style_map: StyleMap) -> str:
    """A map in one line."""
    settings, measured = style_map.settings, style_map.measured
    what, items = ", ".join(settings.stages) or "vectors", counted(len(style_map.places), "item")
    return (
        f"{style_map.map_id}: {items} by {settings.method.value} of {settings.descriptor.value} "
        f"({what}), distances {measured.exactness.value}, error {measured.rms_error:.1e}"
    )


def quality_lines(style_map: StyleMap) -> list[str]:
    """The quality of each layout in one line."""
    lines = []
    for layout in style_map.layouts:
        quality, items = layout.quality, len(style_map.places)
        name = f"perplexity {layout.perplexity:g}" if layout.perplexity else style_map.settings.method.value
        if items < _FEWEST_MEASURED:
            lines.append(f"{name}: {counted(items, 'item')}, too few to tell good maps from bad ones")
            continue
        line = (
            f"{name}: trustworthiness {quality.trustworthiness:.3f}, continuity {quality.continuity:.3f}, "
            f"{quality.neighbor_preservation:.0%} of neighbors kept"
        )
        if quality.label_accuracy is not None and quality.silhouette is not None:
            line += f", label accuracy {quality.label_accuracy:.1%}, silhouette {quality.silhouette:.2f}"
        if quality.items < items:
            line += f"; of {counted(quality.items, 'item')}, standard error {quality.standard_error:.3f}"
        if quality.neighbor_recall < 1:
            line += f"; {quality.neighbor_recall:.1%} of the true neighbors used"
        lines.append(line)
    return lines


def comparison_lines(style_map: StyleMap) -> list[str]:
    """The table of compared descriptors; none if none were compared."""
    if not style_map.comparison:
        return []
    k = style_map.settings.quality_neighbors
    lines = [f"{k}-NN label accuracy      data    map"]
    for row in style_map.comparison:
        on_map = "     -" if row.label_accuracy is None else f"{row.label_accuracy:6.1%}"
        options = "" if row.balance_stages else " --no-balance-stages"
        lines.append(
            f"{'':18s}{row.descriptor_label_accuracy:10.1%} {on_map}  "
            f"--descriptor {row.descriptor.value} --stages {','.join(row.stages)}{options}"
        )
    return lines
