"""How a run of each kind is watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

from gramlet.embed.sessions import MapRun
from gramlet.embed.types import MapEvent, MapStart, StyleMap
from gramlet.embed.wire import EMBED
from gramlet.run.types import RunInfo, RunKind
from gramlet.stylize.sessions import StylizeRun, SweepRun
from gramlet.stylize.sweep_types import SweepEvent, SweepOrder, SweepResult
from gramlet.stylize.sweep_wire import SWEEP
from gramlet.stylize.types import Result, StylizeEvent, StylizeOrder
from gramlet.stylize.wire import STYLIZE
from gramlet.train.configuration import TrainOrder
from gramlet.train.inputs import LabelledPictures
from gramlet.train.sessions import TrainRun
from gramlet.train.types import Event as TrainEvent
from gramlet.train.types import Result as TrainResult
from gramlet.train.wire import TRAIN
from gramlet.transport.fields import keyword_of
from gramlet.transport.rpc import Rpc
from gramlet.transport.run import Run

AnyEvent: TypeAlias = StylizeEvent | SweepEvent | TrainEvent | MapEvent
"""An event of a run of any kind."""
AnyResult: TypeAlias = Result | SweepResult | TrainResult | StyleMap
"""The result of a run of any kind."""
RESULTS: tuple[type[AnyResult], ...] = (Result, SweepResult, TrainResult, StyleMap)


_ORDERS = {RunKind.STYLIZE: STYLIZE, RunKind.SWEEP: SWEEP, RunKind.TRAIN: TRAIN, RunKind.EMBED: EMBED}


def as_called(run: RunInfo) -> RunInfo:
    """The run, whose error names its field as the call that orders such runs does."""
    if run.error is None:
        return run
    return replace(run, error=replace(run.error, field=keyword_of(run.error.field, _ORDERS[run.kind])))


def watching(run: RunInfo) -> tuple[Rpc, Run[Any]]:
    """The call that watches a run, and what it remembers."""
    run_id = run.run_id
    match run.kind:
        case RunKind.STYLIZE:
            return STYLIZE, StylizeRun(StylizeOrder(watch_run_id=run_id))
        case RunKind.SWEEP:
            return SWEEP, SweepRun(SweepOrder(watch_run_id=run_id))
        case RunKind.TRAIN:
            return TRAIN, TrainRun(TrainOrder(watch_run_id=run_id), LabelledPictures((), ()))
        case RunKind.EMBED:
            return EMBED, MapRun(MapStart(None, watch_map_id=run_id), ())
