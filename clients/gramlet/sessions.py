"""What a call of many messages must remember to survive the loss of its server. Pure: no gRPC, no clock.

The synchronous and the asynchronous client both drive these: they ask for the messages to send, hand in what comes
back, and say when the connection broke.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Iterator

from gramlet.errors import FailedPrecondition, GramletError, Overloaded, Unavailable
from gramlet.feature.v1 import feature_pb2
from gramlet.inputs import PictureInput, read_picture
from gramlet.messages.feature import (
    decode_evaluation,
    decode_outcome,
    encode_evaluate,
    encode_extract_item,
    encode_extraction,
    encode_setup,
)
from gramlet.messages.stylize import decode_event, encode_order
from gramlet.messages.sweep import decode_sweep_event, encode_sweep_order
from gramlet.resumption import Resumption
from gramlet.stylize.v1 import stylize_pb2
from gramlet.types import (
    Adjusted,
    Array,
    Checkpoint,
    ElementType,
    Evaluation,
    Extraction,
    Features,
    Iteration,
    Objective,
    Picture,
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


def new_run_id() -> str:
    """A name that no other run has."""
    return secrets.token_hex(8)


class StylizeRun:
    """One stylization across any number of connections: no event is told twice, and none is missing.

    After a break the run is resumed from its newest checkpoint. A server that has none begins again: the same request
    takes the same course. Events up to the last iteration told are passed over.
    """

    def __init__(self, order: StylizeOrder) -> None:
        if order.stylization is not None and not order.run_id:
            order = dataclasses.replace(order, run_id=new_run_id())
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
            order = dataclasses.replace(order, run_id=new_run_id())
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


class CorpusWindow:
    """The pictures of an ExtractStream that are under way: a bounded number, answered in the order they came.

    A picture that cannot be read is its own outcome and never travels. After a break everything unanswered is sent
    again; extraction has no side effects.
    """

    def __init__(self, extraction: Extraction, in_flight: int) -> None:
        self._setup = feature_pb2.ExtractStreamRequest(extraction=encode_extraction(extraction))
        self._in_flight = max(1, in_flight)
        self._unanswered: dict[str, Picture] = {}
        self._unsent: list[str] = []
        self._is_set_up = False
        self._outcomes: dict[int, Features | GramletError] = {}
        self._added = 0
        self._told = 0

    @property
    def has_room(self) -> bool:
        """Whether another picture may be added."""
        return self._added - self._told < self._in_flight

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._unanswered)

    @property
    def is_empty(self) -> bool:
        """Whether everything was told."""
        return self._told == self._added

    def add(self, picture: PictureInput) -> None:
        """Takes the next picture."""
        number = self._added
        self._added += 1
        try:
            self._unanswered[str(number)] = read_picture(picture, f"pictures[{number}]")
        except GramletError as error:
            self._outcomes[number] = error
        else:
            self._unsent.append(str(number))

    def messages(self) -> Iterator[feature_pb2.ExtractStreamRequest]:
        """What has to be sent now."""
        if not self._is_set_up:
            self._is_set_up = True
            yield self._setup
        unsent, self._unsent = self._unsent, []
        for name in unsent:
            yield encode_extract_item(name, self._unanswered[name])

    def accept(self, message: feature_pb2.ExtractStreamResponse) -> None:
        """Takes an answer.

        Raises:
            Overloaded, Unavailable: The server could not take this picture now; send everything unanswered again.
        """
        outcome = decode_outcome(message.result)
        if isinstance(outcome, Overloaded | Unavailable):
            raise outcome
        if isinstance(outcome, GramletError):
            outcome.field = f"pictures[{message.id}]"  # its place among the caller's pictures, not in a message
        if self._unanswered.pop(message.id, None) is not None:
            self._outcomes[int(message.id)] = outcome

    def broken(self) -> None:
        """The stream is lost: everything unanswered is to be sent again."""
        self._is_set_up = False
        self._unsent = list(self._unanswered)

    def outcomes(self) -> Iterator[Features | GramletError]:
        """What can be told now, in order."""
        while self._told in self._outcomes:
            self._told += 1
            yield self._outcomes.pop(self._told - 1)


class DifferentiationState:
    """An objective at the network, across any number of connections, always to the same weights."""

    def __init__(self, objective: Objective, element_type: ElementType) -> None:
        self._element_type = element_type
        self._sequence = 0
        self._lost = False
        self.objective = objective
        self.weights_digest = ""
        self.reconnects = 0

    def setup(self, objective: Objective) -> feature_pb2.DifferentiateRequest:
        """The message that puts an objective in place."""
        return encode_setup(objective, self._element_type)

    def evaluate(self, picture: Array) -> feature_pb2.DifferentiateRequest:
        """The message that asks for loss and gradient at a picture."""
        self._sequence += 1
        return encode_evaluate(picture, self._sequence)

    def ready(self, message: feature_pb2.DifferentiateResponse, objective: Objective) -> None:
        """Takes the answer to a setup.

        Raises:
            FailedPrecondition: Another network answers than before.
        """
        digest = message.ready.weights_digest
        if self.weights_digest and digest != self.weights_digest:
            raise FailedPrecondition(
                f"the network changed from weights {self.weights_digest[:12]} to {digest[:12]} during the work"
            )
        self.weights_digest = digest
        self.objective = objective
        self.reconnects += self._lost
        self._lost = False

    def evaluation(self, message: feature_pb2.DifferentiateResponse) -> Evaluation | None:
        """The answer to the last `evaluate`; None for an answer to an older one."""
        if message.evaluation.sequence != self._sequence:
            return None
        return decode_evaluation(message.evaluation)

    def broken(self, error: GramletError) -> None:
        """The stream is lost."""
        self._lost = self._lost or isinstance(error, Unavailable)
