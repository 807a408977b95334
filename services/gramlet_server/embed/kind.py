"""How maps report as runs."""

from __future__ import annotations

from collections.abc import Iterator

from gramlet.embed.types import (
    Described,
    LayoutIteration,
    MapEvent,
    MeasuredItems,
    Queued,
    RefusedItem,
    RemoteProgress,
    Started,
    StyleMap,
    Working,
)
from gramlet.run.types import Progress, RunKind

from gramlet_server.embed import stored
from gramlet_server.runs.kind import Kind
from gramlet_server.runs.run import Run


def _progress(event: MapEvent, before: Progress) -> Progress:
    match event:
        case Described():
            return Progress(event.described + event.refused, event.count, phase="items")
        case LayoutIteration():
            phase = f"iterations of layout {event.layout + 1}"
            return Progress(event.iteration, event.iterations, event.kl_divergence, phase)
        case Working():
            return Progress(event.done, event.total, phase=event.task.value)
        case _:
            return before


def reported(run: Run) -> Iterator[MapEvent]:
    """The events of items that have all been described: what a caller may have lost with the process before."""
    items = stored.get_items(run)
    if not stored.get_plan(run).items_of_map_id:  # otherwise the earlier map has reported them
        yield from (RefusedItem(run.run_id, refused) for refused in items.refused)
    yield MeasuredItems(run.run_id, items.measured)


MAP: Kind[MapEvent] = Kind(
    RunKind.EMBED,
    result=StyleMap,
    queued=Queued,
    progress=_progress,
    remote=lambda info: RemoteProgress(info.run_id, info.progress),
    finished=lambda store, map_id: iter([stored.get_map(store, map_id)]),
    reported=reported,
    outcome=lambda event: event.map_id,
    replaceable=(Described, LayoutIteration),
    opening=(Started, MeasuredItems),
)
