"""A kind of runs whose events are whole numbers, and whose result is text."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from gramlet.run.types import Progress, RunKind
from gramlet_server.runs.execution import Work
from gramlet_server.runs.kind import Kind
from gramlet_server.runs.records import Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

Event = int | str | float


def _progress(event: Event, before: Progress) -> Progress:
    return replace(before, done=event) if isinstance(event, int) else before


def _finished(store: Store, run_id: str) -> Any:
    yield Run(store, RunKind.TRAIN.value, run_id, 0).get("result").decode()


NUMBERS: Kind[Event] = Kind(
    RunKind.TRAIN,
    result=str,
    queued=lambda _, position: -1 - position,
    progress=_progress,
    remote=lambda info: float(info.progress.done),
    finished=_finished,
)
"""Queued is -1 minus the position; the progress on another replica is a float."""


def new_work(
    records: Records,
    events: Callable[[], Generator[Event, None, None]],
    run_id: str = "r",
    *,
    detached: bool = False,
) -> Callable[[], Work[Event]]:
    """Prepares a new run that does this work."""
    return lambda: Work(Run.create(records.store, "train", run_id), NUMBERS, events, detached=detached)


def taken_over(
    records: Records, events: Callable[[], Generator[Event, None, None]], run_id: str = "r"
) -> Callable[[], Work[Event]]:
    """Takes over a run, and goes on with this work."""
    return lambda: Work(Run.take_over(records.store, "train", run_id), NUMBERS, events)


def finite(records: Records, run_id: str, *events: Event, detached: bool = False) -> Callable[[], Work[Event]]:
    """Prepares a run that reports these events. If the last one is text, it is the result, and stored."""

    def prepare() -> Work[Event]:
        run = Run.create(records.store, "train", run_id)

        def steps() -> Generator[Event, None, None]:
            for event in events:
                if isinstance(event, str):
                    run.put("result", event.encode())
                yield event

        return Work(run, NUMBERS, steps, detached=detached)

    return prepare
