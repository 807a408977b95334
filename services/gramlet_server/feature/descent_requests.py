"""The requests of the caller of a descent that is under way."""

from __future__ import annotations

import threading

from gramlet.feature.descent_types import DescentWeights

from gramlet_server.feature.descent_parts import Control

STATES_SHARE = 0.02
"""States come less often than asked for where they would take a larger share of the time."""


class Requests:
    """What the caller has sent to a descent, and what became of its last state. For any thread.

    Attributes:
        draining: The server is shutting down: the descent is stopped, and fails.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._weights: DescentWeights | None = None
        self._proceed = self._stop = self.draining = False
        self._state_waits = False
        self._state_seconds = 0.0

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

    def state_made(self, seconds: float) -> None:
        """A state waits for the reader. It took so long to make."""
        self._state_waits, self._state_seconds = True, seconds

    def state_taken(self, seconds: float) -> None:
        """The reader has it, and took so long for it."""
        # The descent went on meanwhile, but on a CPU it shared the processor with the reader, and with StylizeService,
        # which writes the state afterwards and takes about as long.
        self._state_waits, self._state_seconds = False, self._state_seconds + 2 * seconds

    def state_due(self, wanted: float, since: float) -> bool:
        """Whether it is time for a state.

        Args:
            wanted: Seconds between two states; 0: none.
            since: Seconds since the last one. While that waits for its reader, no further one is made.
        """
        if not wanted or self._state_waits:
            return False
        return since >= max(wanted, self._state_seconds / STATES_SHARE)

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
