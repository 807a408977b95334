"""Taking turns: a few pieces of long work at once, the others in line, the rest refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from gramlet.errors import Cancelled, Overloaded

RETRY_SECONDS = 5.0
"""When to try again at a full line. Long work gives no better estimate."""


class Turns:
    """At most `running_limit` turns run at once and `queue_limit` wait, in the order in which they came.

    Args:
        running_limit: Turns under way at once.
        queue_limit: Turns that may wait.
        changed: Told how many run and how many wait, whenever it changes.
    """

    def __init__(
        self, running_limit: int, queue_limit: int, changed: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self.running_limit = running_limit
        self.queue_limit = queue_limit
        self._changed = changed
        self._condition = threading.Condition()
        self._line: list[Turn] = []  # those under way first

    @property
    def running(self) -> int:
        """Turns under way."""
        return min(len(self._line), self.running_limit)

    @property
    def queued(self) -> int:
        """Turns that wait."""
        return len(self._line) - self.running

    def take(self) -> Turn:
        """A place in the line. Leave it in the end, come what may.

        Raises:
            Overloaded: The line is full.
        """
        turn = Turn(self)
        with self._condition:
            if len(self._line) >= self.running_limit + self.queue_limit:
                raise Overloaded(
                    f"{self.running} runs are under way and {self.queued} wait, as many as may",
                    retry_after=RETRY_SECONDS,
                )
            self._line.append(turn)
            self._changed(self.running, self.queued)
        return turn


class Turn:
    """A place in a line."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def positions(self) -> Iterator[int]:
        """Yields how many are before this one whenever that changes, and ends when it may run. 0: it is the next.

        Raises:
            Cancelled: The place was left meanwhile.
        """
        told = -1  # no position is: None is one, and means that it may run
        while True:
            with self._turns._condition:
                while (position := self._position()) == told:
                    self._turns._condition.wait()
            if position is None:
                return
            yield position
            told = position

    def leave(self) -> None:
        """Makes room for the next. Leaving twice is leaving once."""
        with self._turns._condition:
            if self in self._turns._line:
                self._turns._line.remove(self)
                self._turns._changed(self._turns.running, self._turns.queued)
                self._turns._condition.notify_all()

    def _position(self) -> int | None:
        if self not in self._turns._line:
            raise Cancelled("the run was cancelled while it waited for its turn")
        ahead = self._turns._line.index(self) - self._turns.running_limit
        return ahead if ahead >= 0 else None
