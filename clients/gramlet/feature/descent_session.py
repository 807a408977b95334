"""What a descent remembers, so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

from gramlet.errors import Cancelled, GramletError, OtherWeights, Unavailable
from gramlet.feature.descent_types import (
    DescentEnding,
    DescentEvent,
    DescentFinished,
    DescentIteration,
    DescentPreview,
    DescentQueued,
    DescentReady,
    DescentRecovered,
    DescentStart,
    DescentState,
    DescentWaiting,
    DescentWeights,
    RecoveryReason,
)
from gramlet.feature.descent_wire import (
    DescentReader,
    encode_descent_start,
    encode_proceed,
    encode_reweight,
    encode_stop,
)
from gramlet.inputs.values import checked
from gramlet.transport.rpc import Message
from gramlet.types import short_digest


class DescentSession:
    """A descent across any number of connections, always with the same network. No event is reported twice or missed.

    After a break the descent starts again from its newest state, or from its start, and takes the same steps. Events
    that the caller has seen are left out. What the caller has sent meanwhile waits until the descent has caught up, so
    that it takes effect after the events which the caller saw when it sent it.

    Requests may be made in any thread; replies are accepted in one.

    Args:
        start: The descent. It goes on from its state, if it has one.

    Attributes:
        start: What the next connection begins with.
        done: The descent has ended.
    """

    def __init__(self, start: DescentStart) -> None:
        self.start = start
        self._lock = threading.Lock()
        self._weights: dict[int, DescentWeights] = {}  # sent, by number; those in force and newer ones
        self._proceed = self._stop = self._cancelled = False
        self._unsent: list[Message] = []
        self._ready = False
        self._caught_up = False
        self._iteration = 0  # the last one that the caller has seen
        self._previewed = 0
        self._restarts = 0
        self._number = 0  # of the weights in force
        self._waits: tuple[int, int] | None = None  # the DescentWaiting that the caller has seen: iteration and number
        self._reader = DescentReader()
        self._newest: DescentState | None = None
        self._last: DescentEvent | None = None
        self.done = False

    # --- what to send ---

    def request(self) -> Iterator[Message]:
        """The first messages of a connection.

        Raises:
            Cancelled: The descent was cancelled.
        """
        if self._cancelled:
            raise Cancelled("the descent was cancelled")
        with self._lock:
            self._caught_up = False
            self._unsent = []
            self._reader = DescentReader()
            return encode_descent_start(self.start)

    def reweight(self, weights: DescentWeights) -> None:
        """New weights, to be sent."""
        weights = checked(DescentWeights, weights, "weights")
        with self._lock:
            self._weights[weights.number] = weights
            self._send(encode_reweight(weights))

    def proceed(self) -> None:
        """The last iteration may begin."""
        with self._lock:
            self._proceed = True
            self._send(encode_proceed())

    def stop(self) -> None:
        """The descent is to end with a state."""
        with self._lock:
            self._stop = True
            self._send(encode_stop())

    def cancel(self) -> None:
        """The descent is to end."""
        self._cancelled = True

    def due(self) -> list[Message]:
        """The messages to send now. Each is returned once for each connection."""
        with self._lock:
            due, self._unsent = self._unsent, []
            return due

    def _send(self, message: Message) -> None:
        # Before the descent has caught up, `_catch_up` is still to send everything.
        if self._caught_up:
            self._unsent.append(message)

    def _catch_up(self) -> None:
        """Whatever the caller has sent, and is not yet answered, is due."""
        with self._lock:
            if self._caught_up:
                return
            self._caught_up = True
            newer = [self._weights[number] for number in sorted(self._weights) if number > self._number]
            self._unsent += [encode_reweight(weights) for weights in newer[-1:]]
            self._unsent += [encode_proceed()] * self._proceed + [encode_stop()] * self._stop

    # --- what comes ---

    @property
    def progress(self) -> tuple[object, ...]:
        """How far the descent is. It differs after every reply that brought the descent forward."""
        newest = self._newest.iteration if self._newest is not None else -1
        return self._ready, self._iteration, self._restarts, self._number, self._waits, newest, self.done

    @property
    def queued(self) -> bool:
        """Whether the descent waits for the device."""
        return isinstance(self._last, DescentQueued)

    def accept(self, message: Message) -> list[DescentEvent]:
        """The events in a reply that the caller has not seen.

        Raises:
            OtherWeights: Another network answers than before.
        """
        return [event for each in self._reader.events(message) if (event := self._new(each)) is not None]

    def ended(self) -> None:
        """The server has ended the call in order.

        Raises:
            Unavailable: Something is missing.
        """
        expects_state = self._stop or self.start.ending is not DescentEnding.BEST
        if not self.done and not (expects_state and isinstance(self._last, DescentState)):
            raise Unavailable("the server ended the descent early")
        self.done = True

    def broken(self, error: GramletError) -> GramletError:
        """Takes note of a failure; returns the error by which the retry policy decides."""
        if self._cancelled:
            return Cancelled("the descent was cancelled")
        return error

    def _new(self, event: DescentEvent) -> DescentEvent | None:
        """What to report of an event; None if the caller has seen it."""
        if self._has_caught_up(event):
            self._catch_up()
        self._last = event
        match event:
            case DescentQueued():
                return dataclasses.replace(event, iteration=self._iteration)
            case DescentReady():
                return self._begun(event)
            case DescentIteration(iteration=iteration):
                seen, self._iteration = self._iteration, max(self._iteration, iteration)
                return event if iteration > seen else None
            case DescentPreview(iteration=iteration):
                seen, self._previewed = self._previewed, max(self._previewed, iteration)
                return event if iteration > seen else None
            case DescentRecovered(restarts=restarts):
                seen, self._restarts = self._restarts, max(self._restarts, restarts)
                return event if restarts > seen else None
            case DescentWaiting(iteration=iteration):
                waited, self._waits = self._waits, (iteration, self._number)
                return event if waited != self._waits else None
            case DescentState():
                self._keep(event)
            case DescentFinished():
                self.done = True
        return event

    def _has_caught_up(self, event: DescentEvent) -> bool:
        if isinstance(event, DescentWaiting):
            # A last iteration that the caller has seen is done again only after it is confirmed again.
            return True
        return event.iteration >= self._iteration and not isinstance(event, DescentQueued | DescentRecovered)

    def _begun(self, event: DescentReady) -> DescentEvent | None:
        pinned, digest = self.start.weights_digest, event.weights_digest
        if pinned not in ("", digest):
            raise OtherWeights(
                f"the network changed from weights {short_digest(pinned)} to {short_digest(digest)} during the descent"
            )
        self.start = dataclasses.replace(self.start, weights_digest=digest)
        if not self._ready:
            self._ready, self._iteration = True, event.iteration
            return event
        return DescentRecovered(
            iteration=self._iteration + 1,
            reason=RecoveryReason.RECONNECTED,
            message="the connection to the FeatureService was lost and made again; no iteration was lost",
            restarts=self._restarts,
        )

    def _keep(self, state: DescentState) -> None:
        """From now on, this is where the descent goes on after a break."""
        with self._lock:
            self.start = dataclasses.replace(self.start, state=state.data, initial=None)
            self._number, self._newest = state.number, state
            if weights := self._weights.get(state.number):
                values = {name: value for name, value in vars(weights).items() if name != "number"}
                self.start = dataclasses.replace(
                    self.start, objective=dataclasses.replace(self.start.objective, **values)
                )
            self._weights = {number: sent for number, sent in self._weights.items() if number >= state.number}
