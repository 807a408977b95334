"""The requests of the caller of a descent that is under way."""

from __future__ import annotations

import threading

from gramlet.feature.descent_types import DescentWeights

from gramlet_server.feature.descent_parts import Control
from gramlet_server.feature_source import FIRST_STATE_SECONDS

STATES_SHARE = 0.02
"""States come less often than asked for where they would take a larger share of the time."""

RESUMED_SHARE = 0.25
"""The same of the first state of a descent that was interrupted. It is likely to be interrupted again, and gets on only
if its states come more often than that."""

NEGLIGIBLE_SECONDS = 0.01
"""A first state that takes no longer is always made."""

STATE_BYTES_PER_SECOND = 3e8
"""What making, sending and storing the first state is expected to take, and what a later one has more than the last."""


class Requests:
    """What the caller has sent to a descent, and what became of its last state. For any thread.

    Attributes:
        draining: The server is shutting down: the descent is stopped, and fails.
        was_interrupted: The descent goes on where one was lost.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._weights: DescentWeights | None = None
        self._proceed = self._stop = self.draining = self.was_interrupted = False
        self._state_waits = False
        self._newest = self._spent = 0.0  # seconds for the newest state, and for all
        self._size = 0  # of the newest, in bytes
        self._made_at = 0.0  # when the newest was made, in seconds since the start
        self._distance = FIRST_STATE_SECONDS

    def reweight(self, weights: DescentWeights) -> None:
        """New weights. They replace those that the descent has not seen."""
        with self._changed:
            self._weights = weights
            self._changed.notify_all()

    def proceed(self) -> None:
        """The last iteration may begin."""
        with self._changed:
            self._proceed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """The descent has to end with a state."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def drain(self) -> None:
        """The server is shutting down."""
        self.draining = True
        self.stop()

    def state_made(self, seconds: float, elapsed: float, size: int) -> None:
        """A state of so many bytes waits for the reader. It took `seconds`, and was made `elapsed` after the start."""
        with self._changed:
            self._state_waits, self._newest, self._made_at, self._size = True, seconds, elapsed, size
            self._distance *= 2

    def state_taken(self, seconds: float) -> None:
        """The reader has it, and took so long for it."""
        # The descent went on meanwhile, but on a CPU it shared the processor with the reader, and with StylizeService,
        # which writes the state afterwards and takes about as long.
        with self._changed:
            self._state_waits, self._newest = False, self._newest + 2 * seconds
            self._spent += self._newest

    def state_due(self, wanted: float, elapsed: float, size: int, remaining: float) -> bool:
        """Whether it is time for a state.

        Args:
            wanted: Seconds between two states at most; 0: none. While one waits for its reader, no further one is made.
            elapsed: Seconds since the descent began.
            size: Bytes that a state has.
            remaining: Seconds that the descent still needs, about.
        """
        with self._changed:
            return bool(wanted) and not self._state_waits and self._is_time(wanted, elapsed, size, remaining)

    def _is_time(self, wanted: float, elapsed: float, size: int, remaining: float) -> bool:
        if elapsed - self._made_at < min(wanted, self._distance):
            return False
        if self._made_at:  # a history that grows makes the next state larger than the newest
            more = max(0, size - self._size) / STATE_BYTES_PER_SECOND
            return self._spent + self._newest + more <= STATES_SHARE * elapsed
        resumed = RESUMED_SHARE * elapsed if self.was_interrupted else 0.0
        allowed = max(NEGLIGIBLE_SECONDS, STATES_SHARE * (elapsed + remaining), resumed)
        return size / STATE_BYTES_PER_SECOND <= allowed

    def take(self, control: Control) -> DescentWeights | None:
        """Passes on what has come: the weights are returned."""
        with self._changed:
            weights, self._weights = self._weights, None
            control.proceed, control.stop = self._proceed, self._stop
        return weights

    def wait(self) -> None:
        """Waits until something has come that ends a DescentWaiting."""
        with self._changed:
            while not (self._weights or self._proceed or self._stop):
                self._changed.wait()
