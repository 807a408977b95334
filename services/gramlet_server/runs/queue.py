"""The queue of a service's long work: a few runs at once, the next ones in order, the rest refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from gramlet.errors import Cancelled, Overloaded, Unavailable, counted

from gramlet_server.process.identity import caller

RETRY_SECONDS = 5.0
"""When to try again at a full queue. Long work gives no better estimate."""

BEAT_SECONDS = 10.0
"""A caller who gets no event gets a sign so often that the server still works for it. Clients rely on it."""


def shutting_down(run_id: str = "") -> Unavailable:
    """The error of a run, or of a call that would start one, on a server that is shutting down.

    `retry_after` is 0: another replica can take the run over at once.
    """
    fix = f"resume run {run_id} at another one" if run_id else "use another one"
    return Unavailable(f"this server is shutting down: {fix}", retry_after=0.0)


class Ticket:
    """A place in a queue. Its fields belong to the queue."""

    def __init__(self, owner: str) -> None:
        self.cancelled = False
        self.owner = owner


class RunQueue:
    """At most `running_limit` tickets run at once and `queue_limit` wait, in the order in which they came.

    Args:
        running_limit: Tickets that run at once.
        queue_limit: Tickets that may wait.
        changed: Called with the numbers of running and of waiting tickets when they change.
    """

    def __init__(
        self, running_limit: int, queue_limit: int, changed: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self.running_limit = running_limit
        self.queue_limit = queue_limit
        self._report = changed
        self._condition = threading.Condition()
        self._tickets: list[Ticket] = []  # the running ones first
        self._closed = False

    @property
    def running(self) -> int:
        """Tickets that run."""
        return min(len(self._tickets), self.running_limit)

    @property
    def queued(self) -> int:
        """Tickets that wait."""
        return len(self._tickets) - self.running

    def take(self) -> Ticket:
        """A new ticket, which has to leave the queue in the end.

        Raises:
            Overloaded: The queue is full, or the caller's name has as many runs as it may.
            Unavailable: The queue is closed.
        """
        ticket = Ticket(caller.get().name)
        with self._condition:
            self._check()
            self._tickets.append(ticket)
            self._report(self.running, self.queued)
        return ticket

    def check(self) -> None:
        """Raises what `take` would raise now."""
        with self._condition:
            self._check()

    def _check(self) -> None:
        who = caller.get()
        if self._closed:
            raise shutting_down()
        own = sum(each.owner == who.name for each in self._tickets)
        if who.name and who.most_runs and own >= who.most_runs:
            message = f"{counted(own, 'run')} of {who.name} under way or waiting, the limit"
            raise Overloaded(message, retry_after=RETRY_SECONDS)
        if len(self._tickets) >= self.running_limit + self.queue_limit:
            raise Overloaded(
                f"{counted(self.running, 'run')} under way and {self.queued} waiting, which is the limit",
                retry_after=RETRY_SECONDS,
            )

    def positions(self, ticket: Ticket, again_after: float | None = None) -> Iterator[int]:
        """Yields how many wait before a ticket whenever that changes (0: it is the next), and ends when it may run.

        Args:
            ticket: The ticket.
            again_after: Seconds after which a position is yielded again that has not changed; None: it is not.

        Raises:
            Cancelled: The ticket was cancelled.
            Unavailable: The queue was closed while the ticket waited.
        """
        reported: int | None = -1  # neither a position nor None, which means that the ticket may run
        while True:
            with self._condition:
                while (position := self._position(ticket)) == reported:
                    if not self._condition.wait(again_after):
                        break
            if position is None:
                return
            yield position
            reported = position

    def cancel(self, ticket: Ticket) -> None:
        """Ends the wait of a ticket. It keeps its place until it leaves."""
        with self._condition:
            ticket.cancelled = True
            self._condition.notify_all()

    def leave(self, ticket: Ticket) -> None:
        """Makes room for the next ticket. Leaving twice does nothing more."""
        with self._condition:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._report(self.running, self.queued)
                self._condition.notify_all()

    def close(self) -> None:
        """Takes no more tickets, and ends the wait of those that wait. Running tickets go on."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _position(self, ticket: Ticket) -> int | None:
        if ticket.cancelled:
            raise Cancelled("the run was cancelled while it waited in the queue")
        ahead = self._tickets.index(ticket) - self.running_limit
        if ahead < 0:
            return None
        if self._closed:
            raise shutting_down()
        return ahead
