"""How stylizations and sweeps report as runs, and how their results are stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator

from gramlet.errors import counted
from gramlet.run.types import Progress, RunInfo, RunKind
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.types import (
    Iteration,
    Preview,
    Queued,
    RemoteProgress,
    Result,
    Started,
    StylizeEvent,
    StylizeSettings,
)

from gramlet_server.runs.kind import RESULT, Kind, picture_of
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.stylize.orders import get_order
from gramlet_server.stylize.results import Finished
from gramlet_server.stylize.sweep import Cell


def finished(run: Run, name: str = RESULT) -> Finished:
    """The stored result of a stylization, or of a cell of a sweep."""
    with run.intact(name):
        return Finished.from_bytes(run.get(name))


def stored_result(run: Run) -> Generator[StylizeEvent, None, None]:
    """The result of a stylization, with the iterations before it."""
    yield from finished(run).events


def put_sweep_result(run: Run, result: SweepResult) -> None:
    """Stores the result of a sweep: a line with the digest of the weights, then the picture."""
    run.put(RESULT, result.weights_digest.encode() + b"\n" + result.png)


def stored_sweep_result(run: Run) -> Generator[SweepEvent, None, None]:
    """The result of a sweep, with what is remembered of the cells before it."""
    yield from _cells(run)
    yield _sweep_result(run)


def cell_key(cell: Cell) -> str:
    """The value of a run that has the result of a cell."""
    return "cell-{}-{}".format(*cell)


def _cells(run: Run) -> Iterator[SweepEvent]:
    kept = get_order(run, "resume_run_id")
    for row, stage in enumerate(kept.deepest_stages):
        for column, ratio in enumerate(kept.ratios):
            for event in finished(run, cell_key((row, column))).events:
                yield SweepCell(row=row, column=column, deepest_stage=stage, ratio=ratio, event=event)


def _sweep_result(run: Run) -> SweepResult:
    stored = run.get(RESULT)
    return SweepResult(png=picture_of(stored), weights_digest=stored.partition(b"\n")[0].decode(errors="replace"))


def _stylization(store: Store, run_id: str) -> Run:
    return Run(store, RunKind.STYLIZE.value, run_id, 0)


def _sweep(store: Store, run_id: str) -> Run:
    return Run(store, RunKind.SWEEP.value, run_id, 0)


def in_short(settings: StylizeSettings) -> str:
    """Settings for a list of runs."""
    return f"{settings.preset or 'default'}, {settings.size} px, {counted(settings.iterations or 0, 'iteration')}"


def _progress(event: StylizeEvent, before: Progress) -> Progress:
    match event:
        case Started():
            return Progress(event.iteration, event.settings.iterations or 0, before.loss, "iterations")
        case Iteration():
            return dataclasses.replace(before, done=event.iteration, loss=event.loss)
        case Result():
            return dataclasses.replace(before, loss=event.loss)  # of the picture, which is the best one
        case _:
            return before


def _remote(info: RunInfo) -> StylizeEvent:
    progress = info.progress
    loss = math.nan if progress.loss is None else progress.loss
    return RemoteProgress(iteration=progress.done, loss=loss, total=progress.total)


def _sweep_progress(event: SweepEvent, before: Progress) -> Progress:
    match event:
        case SweepStarted():
            return Progress(0, len(event.ratios) * len(event.deepest_stages), phase="cells")
        case SweepCell(event=Result()):
            return dataclasses.replace(before, done=before.done + 1, loss=event.event.loss)
        case _:
            return before


STYLIZATION: Kind[StylizeEvent] = Kind(
    RunKind.STYLIZE,
    result=Result,
    queued=lambda _, position: Queued(position=position),
    progress=_progress,
    remote=_remote,
    finished=lambda store, run_id: iter([finished(_stylization(store, run_id)).result]),
    reported=lambda run: iter(finished(run).reported),
    replaceable=(Preview,),
    opening=(Started,),
)
SWEEP: Kind[SweepEvent] = Kind(
    RunKind.SWEEP,
    result=SweepResult,
    queued=lambda _, position: SweepQueued(position=position),
    progress=_sweep_progress,
    remote=lambda info: SweepRemoteProgress(progress=info.progress),
    finished=lambda store, run_id: iter([_sweep_result(_sweep(store, run_id))]),
    reported=_cells,
    opening=(SweepStarted,),
)
