"""What a call of StylizeService remembers, so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

from gramlet.inputs.values import fill
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepOrder,
    SweepQueued,
    SweepReconnecting,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.sweep_wire import decode_sweep_event, encode_sweep_order
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Iteration,
    Preview,
    Queued,
    Reconnecting,
    Recovered,
    RecoveryReason,
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
    StylizeOrder,
)
from gramlet.stylize.wire import decode_event, encode_order
from gramlet.transport.rpc import Message
from gramlet.transport.run import Run
from gramlet.types import new_name

Order = TypeVar("Order", StylizeOrder, SweepOrder)


def _named(order: Order) -> Order:
    """The order with checked values; a new run without a name gets a random one, with which it can be resumed."""
    order = fill(type(order), vars(order), called={"resume_run_id": "run_id"})
    if order.stylization is not None and not order.run_id:
        order = dataclasses.replace(order, run_id=new_name())
    return order


class StylizeRun(Run[StylizeEvent]):
    """One stylization. Events up to the last iteration that the caller has seen are skipped, until weights change."""

    remote = RemoteProgress

    def __init__(self, order: StylizeOrder) -> None:
        order = _named(order)
        run_id = order.run_id or order.resume_run_id or order.watch_run_id
        super().__init__(run_id, ordered=order.stylization is not None, watching=bool(order.watch_run_id))
        self._order = order
        self._started = False
        self._scale = -1
        self._iteration = 0
        self._recoveries: set[tuple[int, RecoveryReason]] = set()
        self._preview = 0
        self._checkpoint = 0
        self._adjustments = 0
        self._loss = math.nan

    def request(self) -> Message:
        """The order, or the request to resume with the same reports."""
        if self.watching or not self.resuming:
            return encode_order(self._order)
        return encode_order(
            dataclasses.replace(
                self._order, stylization=None, run_id="", resume_run_id=self.run_id, take_over=self.take_over
            )
        )

    def accept(self, message: Message) -> StylizeEvent | None:
        """The event with the newest loss, or None for one that the caller has seen before."""
        event = super().accept(message)
        if event is None or isinstance(event, Iteration | RemoteProgress | Result):
            return event
        return dataclasses.replace(event, loss=self._loss)

    def _reconnecting(self, message: str) -> StylizeEvent:
        return Reconnecting(run_id=self.run_id, iteration=max(0, self._iteration), loss=self._loss, message=message)

    def _decode(self, message: Message) -> StylizeEvent | None:
        return decode_event(message)

    def _is_new(self, event: StylizeEvent) -> bool:
        match event:
            case Queued() | Started():
                return not self._started
            case ScaleStarted():
                return event.iteration > self._scale
            case Iteration():  # what was before the first event is reported again to earlier callers
                return (self._ordered or self._started) and event.iteration > self._iteration
            case RemoteProgress():
                return event.iteration > self._iteration
            case Recovered():
                return event.iteration > self._iteration and (event.iteration, event.reason) not in self._recoveries
            case Preview():
                return event.iteration > self._preview
            case Checkpoint():
                return event.iteration > self._checkpoint
            case Adjusted():
                return event.number > self._adjustments
            case _:
                return True

    def _remember(self, event: StylizeEvent) -> None:
        match event:
            case Started():
                self._started = True
                if not self._ordered:  # what was before is reported again to callers who have seen the begin
                    self._iteration = event.iteration
            case ScaleStarted():
                self._scale = event.iteration
            case Iteration() | RemoteProgress():
                self._iteration = event.iteration
                self._loss = event.loss
            case Recovered():
                self._recoveries.add((event.iteration, event.reason))
            case Preview():
                self._preview = event.iteration
            case Checkpoint():
                self._checkpoint = event.iteration
            case Adjusted():
                self._adjustments = event.number
                self._go_back_to(event.iteration)
            case Result():
                self.done = True

    def _go_back_to(self, iteration: int) -> None:
        """Lets the iterations after this one be reported again: a lost server took them, with the old weights."""
        self._iteration = min(self._iteration, iteration)
        self._preview = min(self._preview, iteration)
        self._checkpoint = min(self._checkpoint, iteration)


class SweepRun(Run[SweepEvent]):
    """One sweep. Of each cell, events up to the last iteration that the caller has seen are skipped."""

    remote = SweepRemoteProgress

    def __init__(self, order: SweepOrder) -> None:
        order = _named(order)
        run_id = order.run_id or order.resume_run_id or order.watch_run_id
        super().__init__(run_id, ordered=order.stylization is not None, watching=bool(order.watch_run_id))
        self._order = order
        self._started = False
        self._progress: dict[tuple[int, int], float] = {}

    def request(self) -> Message:
        """The order, or the request to resume."""
        if self.watching or not self.resuming:
            return encode_sweep_order(self._order)
        order = SweepOrder(resume_run_id=self.run_id, detached=self._order.detached, take_over=self.take_over)
        return encode_sweep_order(order)

    def _reconnecting(self, message: str) -> SweepEvent:
        return SweepReconnecting(run_id=self.run_id, message=message)

    def _decode(self, message: Message) -> SweepEvent | None:
        return decode_sweep_event(message)

    def _is_new(self, event: SweepEvent) -> bool:
        match event:
            case SweepQueued() | SweepStarted():
                return not self._started
            case SweepCell():
                return _progress(event) > self._progress.get((event.row, event.column), -1.0)
            case _:
                return True

    def _remember(self, event: SweepEvent) -> None:
        match event:
            case SweepStarted():
                self._started = True
            case SweepCell():
                self._progress[event.row, event.column] = _progress(event)
            case SweepResult():
                self.done = True


def _progress(cell: SweepCell) -> float:
    return math.inf if isinstance(cell.event, Result) else float(cell.event.iteration)
