"""How stylizations and sweeps report as runs, and how their results are stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator

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
from gramlet_server.stylize.sweep import result_from_bytes


def stored_result(run: Run) -> Generator[StylizeEvent, None, None]:
    """The result of a stylization."""
    with run.intact(RESULT):
        result = result_from_bytes(run.get(RESULT))
    yield result


def put_sweep_result(run: Run, result: SweepResult) -> None:
    """Stores the result of a sweep: a line with the digest of the weights, then the picture."""
    run.put(RESULT, result.weights_digest.encode() + b"\n" + result.png)


def stored_sweep_result(run: Run) -> Generator[SweepEvent, None, None]:
    """The result that `put_sweep_result` wrote."""
    stored = run.get(RESULT)
    yield SweepResult(png=picture_of(stored), weights_digest=stored.partition(b"\n")[0].decode(errors="replace"))


def in_short(settings: StylizeSettings) -> str:
    """Settings for a list of runs."""
    return f"{settings.preset or 'default'}, {settings.size} px, {settings.iterations} iterations"


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
    finished=lambda store, run_id: stored_result(Run(store, RunKind.STYLIZE.value, run_id, 0)),
    replaceable=(Preview,),
    opening=(Started,),
)
SWEEP: Kind[SweepEvent] = Kind(
    RunKind.SWEEP,
    result=SweepResult,
    queued=lambda _, position: SweepQueued(position=position),
    progress=_sweep_progress,
    remote=lambda info: SweepRemoteProgress(progress=info.progress),
    finished=lambda store, run_id: stored_sweep_result(Run(store, RunKind.SWEEP.value, run_id, 0)),
    opening=(SweepStarted,),
)
