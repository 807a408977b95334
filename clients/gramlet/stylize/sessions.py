"""What a call of StylizeService remembers so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
import math

from gramlet.errors import GramletError
from gramlet.stylize.sweep_wire import decode_sweep_event, encode_sweep_order
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Iteration,
    Preview,
    Queued,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
    StylizeOrder,
    SweepCell,
    SweepEvent,
    SweepOrder,
    SweepQueued,
    SweepResult,
    SweepStarted,
)
from gramlet.stylize.v1 import stylize_pb2
from gramlet.stylize.wire import decode_event, encode_order
from gramlet.transport.resumption import Resumption
from gramlet.types import new_name


class StylizeRun:
    """One stylization across any number of connections: no event is told twice, and none is missing.

    After a break the run is resumed from its newest checkpoint. A server that has none begins again: the same request
    takes the same course. Events up to the last iteration told are passed over.
    """

    def __init__(self, order: StylizeOrder) -> None:
        if order.stylization is not None and not order.run_id:
            order = dataclasses.replace(order, run_id=new_name())
        self._order = order
        self.run_id = order.run_id or order.resume_run_id
        self.done = False
        self._resumption = Resumption(f"run {self.run_id}", ordered=order.stylization is not None)
        self._started = False
        self._iteration = 0
        self._recoveries: set[tuple[int, RecoveryReason]] = set()
        self._preview = 0
        self._checkpoint = 0
        self._adjustments = 0
        self._loss = math.nan

    def request(self) -> stylize_pb2.StylizeRequest:
        """What to send now: the order, or the wish to resume."""
        if not self._resumption.resuming:
            return encode_order(self._order)
        return encode_order(
            StylizeOrder(
                resume_run_id=self.run_id,
                preview_every=self._order.preview_every,
                checkpoint_every=self._order.checkpoint_every,
            )
        )

    def accept(self, message: stylize_pb2.StylizeResponse) -> StylizeEvent | None:
        """The event, or None for one that was told before."""
        self._resumption.arrived()
        event = decode_event(message)
        if event is None or not self._is_news(event):
            return None
        self._remember(event)
        return event if isinstance(event, Iteration | Result) else dataclasses.replace(event, loss=self._loss)

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns what the retry policy should judge it by."""
        return self._resumption.broken(error)

    def _is_news(self, event: StylizeEvent) -> bool:
        match event:
            case Queued() | Started():
                return not self._started
            case Iteration():
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
            case Iteration():
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
            case Result():
                self.done = True


class SweepRun:
    """One sweep across any number of connections: no event is told twice, and none is missing."""

    def __init__(self, order: SweepOrder) -> None:
        if order.stylization is not None and not order.run_id:
            order = dataclasses.replace(order, run_id=new_name())
        self._order = order
        self.run_id = order.run_id or order.resume_run_id
        self.done = False
        self._resumption = Resumption(f"sweep {self.run_id}", ordered=order.stylization is not None)
        self._started = False
        self._iterations: dict[tuple[int, int], float] = {}

    def request(self) -> stylize_pb2.SweepRequest:
        """What to send now: the order, or the wish to resume."""
        resume = SweepOrder(resume_run_id=self.run_id)
        return encode_sweep_order(resume if self._resumption.resuming else self._order)

    def accept(self, message: stylize_pb2.SweepResponse) -> SweepEvent | None:
        """The event, or None for one that was told before."""
        self._resumption.arrived()
        event = decode_sweep_event(message)
        match event:
            case SweepQueued() if self._started:
                return None
            case SweepStarted():
                was_started, self._started = self._started, True
                return None if was_started else event
            case SweepCell():
                return event if self._is_news(event) else None
            case SweepResult():
                self.done = True
        return event

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns what the retry policy should judge it by."""
        return self._resumption.broken(error)

    def _is_news(self, cell: SweepCell) -> bool:
        place = (cell.row, cell.column)
        now = math.inf if isinstance(cell.event, Result) else float(cell.event.iteration)
        is_news = now > self._iterations.get(place, -1.0)
        self._iterations[place] = max(now, self._iterations.get(place, -1.0))
        return is_news
