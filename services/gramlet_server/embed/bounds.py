"""The bounds of every number and text of a map's request, in one table. `embed.proto` documents them field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gramlet.embed.settings import Gradient, MapSettings
from gramlet.embed.types import MapStart
from gramlet.errors import InvalidInput

_SETTINGS: dict[str, tuple[float, float]] = {
    "dimensions": (1, 3),
    "neighbors": (1, 1000),
    "quality_neighbors": (1, 1000),
    "sketch_size": (64, 65_536),
    "seed": (0, 2**64 - 1),
}
_TSNE: dict[str, tuple[float, float]] = {
    "perplexities": (1, 1000),
    "iterations": (1, 1_000_000),
    "early_iterations": (0, 1_000_000),
    "early_exaggeration": (1, 1000),
    "learning_rate": (1e-3, 1e6),
    "angle": (0, 1),
}
_LONGEST_LIST = 16
_COUNT = (1, 10_000_000)
_REPORT_EVERY = (0, 1_000_000)
_VECTOR_SIZE = (0, 2**22)


def check_start(start: MapStart) -> None:
    """Checks the numbers of the first message beside the settings.

    Raises:
        InvalidInput: One is out of its bounds.
    """
    if not start.items_of_map_id:
        _check("start.count", start.count, _COUNT, "say how many items will come")
    _check("start.report_every", start.report_every, _REPORT_EVERY)
    _check("start.vector_size", start.vector_size, _VECTOR_SIZE)


def check_settings(settings: MapSettings) -> None:
    """Checks every setting, before any work.

    Raises:
        InvalidInput: A number is not finite or out of its bounds, or a list is too long or empty.
    """
    for name, bounds in _SETTINGS.items():
        _check(f"start.settings.{name}", getattr(settings, name), bounds)
    for name, bounds in _TSNE.items():
        _check(f"start.settings.tsne.{name}", getattr(settings.tsne, name), bounds)
    _check_length("start.settings.stages", settings.stages, 0)
    _check_length("start.settings.tsne.perplexities", settings.tsne.perplexities, 1)
    if settings.dimensions > 2 and settings.tsne.gradient is Gradient.INTERPOLATION:
        raise InvalidInput("gradient by interpolation has at most 2 dimensions", field="start.settings.tsne.gradient")


def _check(field: str, value: object, bounds: tuple[float, float], hint: str = "") -> None:
    low, high = bounds
    for number in _numbers(value):
        if not low <= number <= high:  # also false for NaN
            name = field.rpartition(".")[2]
            rule = f"{name} lies between {low:.15g} and {high:.15g}, and is not {number:.15g}"
            raise InvalidInput(f"{hint}: {rule}" if hint else rule, field=field)


def _numbers(value: object) -> Iterator[float]:
    """The numbers of a field: one, several, or none if it is unset."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, tuple):
        yield from value


def _check_length(field: str, values: Sequence[object], least: int) -> None:
    if not least <= len(values) <= _LONGEST_LIST:
        name = field.rpartition(".")[2]
        raise InvalidInput(f"give {least} to {_LONGEST_LIST} {name}, not {len(values)}", field=field)
