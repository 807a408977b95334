"""The life of a run, the same for stylize, sweep, train and embed.

1. The run takes a place in the queue, before any work; a full queue raises Overloaded.
2. `prepare` checks the order and creates the `Run` in the store, or takes it over. Its errors free the place.
3. A thread of the run's own waits for its turn and reports its position, then does the work, event by event.
4. The caller reads the events from a buffer; the work never waits for the caller.
5. The run ends with its last event, with an error, within one event of `cancel`, or after `drain`.
   However it ends, the thread makes room in the queue.

A service says in a `Work` what is special about its runs:

    self.lifecycle = Lifecycle(running_limit=2, queue_limit=32, replaceable=(Preview,))

    def start(self, order: Order) -> Execution[Event]:
        def prepare() -> Work[Event]:
            run = Run.create(self._store, "stylize", order.run_id)
            return Work(run.run_id, queued=Queued, events=lambda: self._descend(run, order))
        return self.lifecycle.start(prepare)

    execution = runs.start(order)                      # in service.py
    execution.cancel_with_call(context.add_callback)
    yield from map(encode, execution)

After each step that it has saved, the work calls `lifecycle.check_draining(run_id)`, which ends it with Unavailable
when the server is shutting down: the next owner of the run goes on from there. Work of a cancelled run is closed
(GeneratorExit) at its `yield`.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gramlet.errors import Cancelled

from gramlet_server.runs.events import EventBuffer
from gramlet_server.runs.queue import RunQueue, Ticket, shutting_down

Event = TypeVar("Event")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work(Generic[Event]):
    """A run that is prepared and waits for its turn.

    Attributes:
        run_id: The run in the store, which this process owns.
        queued: Makes the event that reports how many runs wait before this one.
        events: Does the work, in the run's thread, once its turn has come. Never called for a run that is cancelled
            or drained before that, so whatever has to be undone is set up inside it.
        wake: Called in another thread after `cancel` or `drain`, for work that waits for something else than its next
            event.
    """

    run_id: str
    queued: Callable[[int], Event]
    events: Callable[[], Generator[Event, None, None]]
    wake: Callable[[], None] = lambda: None


class Execution(Generic[Event]):
    """A run in this process, and the reader of its events: iterate over it once.

    Attributes:
        run_id: The run in the store.
    """

    def __init__(
        self,
        work: Work[Event],
        queue: RunQueue,
        ticket: Ticket,
        buffer: EventBuffer[Event],
        left: Callable[[Work[Event]], None],
    ) -> None:
        self.run_id = work.run_id
        self._left = left
        self._work = work
        self._queue = queue
        self._ticket = ticket
        self._buffer = buffer
        # The thread runs in the context of its call, so its log lines, and the calls it makes, carry that call's id.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=[self._execute], name="run", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Event]:
        """The events of the run. Raises Cancelled after `cancel`, and the error that ends the run, if one does."""
        return self._buffer

    def cancel(self) -> None:
        """Stops the run within one event, or at once if it waits. What it saved can be resumed. Returns at once."""
        self._buffer.cancel()
        self._queue.cancel(self._ticket)
        self._work.wake()

    def cancel_with_call(self, add_callback: Callable[[Callable[[], None]], bool]) -> None:
        """Cancels the run when the call that reads it ends, however it ends; a finished run is not affected.

        Args:
            add_callback: gRPC's `context.add_callback`. It returns False, and never calls back, when the call is
                already over: a call can be cancelled while its run is prepared.
        """
        if not add_callback(self.cancel):
            self.cancel()

    def join(self) -> None:
        """Waits until the work has stopped and the run has left the queue."""
        self._thread.join()

    def _execute(self) -> None:
        error: BaseException | None = None
        try:
            for position in self._queue.positions(self._ticket):
                self._buffer.put(self._work.queued(position))
            with closing(self._work.events()) as events:
                for event in events:
                    if self._buffer.cancelled:
                        break
                    self._buffer.put(event)
        except BaseException as raised:
            error = raised
            if self._buffer.cancelled and not isinstance(raised, Cancelled):  # the reader does not get this error
                _log.warning("run %s was cancelled, and failed as it ended: %r", self.run_id, raised)
        finally:
            self._queue.leave(self._ticket)
            self._left(self._work)
            self._buffer.end(error)


class Lifecycle:
    """Runs the long work of a service.

    Args:
        running_limit: Runs that are executed at once.
        queue_limit: Runs that may wait for their turn.
        replaceable: The types of events of which a slow reader gets only the newest.
        changed: Called with the numbers of running and of waiting runs when they change.

    Attributes:
        queue: The queue of the runs.
    """

    def __init__(
        self,
        running_limit: int,
        queue_limit: int,
        *,
        replaceable: tuple[type, ...] = (),
        changed: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.queue = RunQueue(running_limit, queue_limit, changed)
        self._replaceable = replaceable
        self._draining = threading.Event()
        self._works: list[Work[Any]] = []  # that were started, and have not ended

    def start(self, prepare: Callable[[], Work[Event]]) -> Execution[Event]:
        """Queues a run, prepares it and starts its thread.

        Raises:
            Overloaded: The queue is full. `prepare` was not called.
            Unavailable: The server is shutting down. `prepare` was not called.
            GramletError: What `prepare` raises.
        """
        ticket = self.queue.take()
        try:
            work = prepare()
            self._works.append(work)
            return Execution(work, self.queue, ticket, EventBuffer(self._replaceable), self._works.remove)
        except BaseException:
            self.queue.leave(ticket)
            raise

    def drain(self) -> None:
        """Shuts down: waiting runs end at once with Unavailable, running ones at their next `check_draining`."""
        self._draining.set()
        self.queue.close()
        for work in list(self._works):
            work.wake()

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down. Work asks it in order to save its state before `check_draining`."""
        return self._draining.is_set()

    def check_draining(self, run_id: str) -> None:
        """Ends a run when the server is shutting down, so that another replica goes on with it.

        Raises:
            Unavailable: The server is shutting down; `retry_after` is 0.
        """
        if self.draining:
            raise shutting_down(run_id)
