"""How trainings report as runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from gramlet.run.types import Progress, RunKind
from gramlet.train.types import Accepted, Epoch, Event, Extracting, Queued, RemoteProgress, Result, Started, Step

from gramlet_server.runs.kind import Kind
from gramlet_server.runs.store import Store
from gramlet_server.train.training import reported


def training_kind(finished: Callable[[Store, str], Iterator[Event]]) -> Kind[Event]:
    """The kind of trainings; `finished` gives the events of a run, by its id, that has succeeded."""
    return Kind(
        RunKind.TRAIN,
        result=Result,
        queued=lambda _, position: Queued(position),
        progress=_progress,
        remote=lambda info: RemoteProgress(info.progress),
        finished=finished,
        reported=reported,
        for_others=lambda event: replace(event, wanted=(), names=()) if isinstance(event, Accepted) else event,
        outcome=lambda event: f"{event.head.name}/{event.head.version}" if isinstance(event, Result) else "",
        replaceable=(Step, Extracting),
        opening=(Accepted, Started),
    )


def _progress(event: Event, before: Progress) -> Progress:
    match event:
        case Accepted():
            return Progress(0, event.pictures, phase="pictures")
        case Extracting():
            return Progress(event.done, event.total, phase="pictures")
        case Epoch():
            return Progress(event.epoch, event.epochs, event.loss, f"epochs of recipe {event.recipe + 1}")
        case _:
            return before
