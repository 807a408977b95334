"""The life of a run, the same for stylize, sweep, train and embed.

1. The run takes a place in the queue, before any work; a full queue raises Overloaded.
2. `prepare` checks the order and creates the `Run` in the store, or takes it over. Its errors free the place.
3. A thread of the run's own waits for its turn and reports its position, then does the work, event by event.
4. Callers read the events from buffers; the work never waits for them. See `events`, `watch`.
5. The run ends with its result, with an error, within one event after its last caller has left (unless it is detached)
   or after it was stopped, or after `drain`. However it ends, the thread makes room in the queue.
6. Meanwhile a second thread stores the progress and renews the lease. See `execution`, `records`.

A service says in a `Kind` how its runs report, and in a `Work` what one of them does:

    self.lifecycle = Lifecycle(Records(store), running_limit=2, queue_limit=32)

    def start(self, order: Order) -> Watch[Event]:
        def prepare() -> Work[Event]:
            run = Run.create(self._store, "stylize", order.run_id)
            return Work(run, KIND, events=lambda: self._descend(run, order), detached=order.detached)
        return self.lifecycle.start(prepare)

    watch = runs.start(order)                      # in service.py
    watch.cancel_with_call(context.add_callback)
    yield from map(encode, watch)

After each step that it has saved, the work calls `lifecycle.check_draining(run_id)`, which ends it with Unavailable
when the server is shutting down: the next owner of the run goes on from there. Work of a stopped run is closed
(GeneratorExit) at its `yield`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from gramlet.errors import GramletError, NotFound
from gramlet.run.types import RunKind, RunState
from gramlet.types import check_name

from gramlet_server.runs.execution import Execution, Work
from gramlet_server.runs.kind import Kind
from gramlet_server.runs.queue import RunQueue, Ticket, shutting_down
from gramlet_server.runs.records import Records
from gramlet_server.runs.watch import FinishedWatch, LocalWatch, StoreWatch, Watch

Event = TypeVar("Event")


class Lifecycle:
    """Runs the long work of a service.

    Args:
        records: What the store knows about the runs.
        running_limit: Runs that are executed at once.
        queue_limit: Runs that may wait for their turn.
        changed: Called with the numbers of running and of waiting runs when they change.

    Attributes:
        queue: The queue of the runs.
        records: What the store knows about the runs.
        check_quota: Raises Overloaded where the caller may not store another run. Runs that exist always go on.
    """

    def __init__(
        self,
        records: Records,
        running_limit: int,
        queue_limit: int,
        *,
        changed: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.records = records
        self.check_quota: Callable[[], None] = _nothing
        self.queue = RunQueue(running_limit, queue_limit, changed)
        self._executions: dict[tuple[RunKind, str], Execution[Any]] = {}
        self._lock = threading.Lock()
        self._draining = threading.Event()
        self._drained_at = math.inf

    def start(self, prepare: Callable[[], Work[Event]]) -> LocalWatch[Event]:
        """Queues a run, prepares it and starts its threads.

        Raises:
            Overloaded: The queue is full, or the caller has too much in the store. `prepare` was not called.
            Unavailable: The server is shutting down. `prepare` was not called.
            GramletError: What `prepare` raises.
        """
        return self._started(prepare, self.check_quota)

    def _started(self, prepare: Callable[[], Work[Event]], check: Callable[[], None]) -> LocalWatch[Event]:
        execution = self._queued(prepare, check)
        execution.join_caller()
        watch = LocalWatch(execution, keeps=True, ordered=True)
        execution.start()
        return watch

    def start_alone(self, prepare: Callable[[], Work[Event]]) -> None:
        """Starts a detached run without any caller. Errors are those of `start`."""
        self._queued(prepare, _nothing).start()

    def watch(self, kind: Kind[Event], run_id: str) -> Watch[Event]:
        """The events of a run, without any influence on it.

        Raises:
            NotFound: There is no such run.
        """
        record = self.records.read(kind.kind, check_name(run_id, "watch_run_id"))
        if record is None:
            raise NotFound(f"the store has no run {run_id}", field="watch_run_id")
        if watch := self._finished(kind, run_id, resumes=False):
            return watch
        return self._here(kind, run_id) or self._from_store(kind, run_id, None)

    def resume(
        self, kind: Kind[Event], run_id: str, prepare: Callable[[], Work[Event]], *, detached: bool, take_over: bool
    ) -> Watch[Event]:
        """Goes on with a run, or joins it if a process executes it, or gives its result again.

        Args:
            kind: Its kind.
            run_id: The run.
            prepare: Takes it over.
            detached: It goes on when its caller leaves, from now on.
            take_over: Do not wait until its lease has ended. A detached run is joined nevertheless.

        Raises:
            NotFound: There is no such run.
            GramletError: As `start`.
        """
        self.records.check_visible(kind.kind, check_name(run_id, "resume_run_id"), "resume_run_id")
        execution = self.execution(kind.kind, run_id)
        if execution is not None and execution.join_caller(detached):
            return LocalWatch(execution, keeps=True)
        if execution is not None:
            execution.join()
        if finished := self._finished(kind, run_id, resumes=True):
            return finished
        record = self.records.read(kind.kind, run_id)
        if record and self.records.is_alive(record) and (record.info.detached or not take_over):
            return self._from_store(kind, run_id, prepare)
        return self._started(prepare, _nothing)

    def execution(self, kind: RunKind, run_id: str) -> Execution[Any] | None:
        """The run in this process; None if it executes no such run."""
        return self._executions.get((kind, run_id))

    def drain(self) -> None:
        """Shuts down: waiting runs end at once with Unavailable, running ones at their next `check_draining`."""
        self._drained_at = time.monotonic()
        self._draining.set()
        self.queue.close()
        with self._lock:
            executions = list(self._executions.values())
        for execution in executions:
            execution.wake()

    def close(self, seconds: float) -> None:
        """Waits until all runs have ended, but not longer than this after `drain`. Detached runs have no call."""
        until = min(self._drained_at, time.monotonic()) + seconds
        for execution in list(self._executions.values()):
            execution.join(max(0.0, until - time.monotonic()))

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

    def wait_for_draining(self, seconds: float) -> bool:
        """Waits until the server shuts down, but not longer than this; whether it does."""
        return self._draining.wait(seconds)

    def _queued(self, prepare: Callable[[], Work[Event]], check: Callable[[], None]) -> Execution[Event]:
        ticket = self.queue.take()
        try:
            check()
            execution = self._execution(prepare(), ticket)
            with self._lock:
                self._executions[execution.key] = execution
            return execution
        except BaseException:
            self.queue.leave(ticket)
            raise

    def _execution(self, work: Work[Event], ticket: Ticket) -> Execution[Event]:
        try:
            return Execution(work, self.records, self.queue, ticket, self._forget)
        except GramletError:  # its record cannot be stored
            if work.run.epoch == 1:
                with suppress(GramletError):
                    work.run.delete()
            raise

    def _forget(self, execution: Execution[Any]) -> None:
        with self._lock:
            if self._executions.get(execution.key) is execution:  # another call may have taken the run over meanwhile
                del self._executions[execution.key]

    def _finished(self, kind: Kind[Event], run_id: str, *, resumes: bool) -> Watch[Event] | None:
        record = self.records.read(kind.kind, run_id)
        if record is None or record.info.state is not RunState.SUCCEEDED:
            return None
        return FinishedWatch(run_id, kind, self.records.store, resumes=resumes)

    def _here(self, kind: Kind[Event], run_id: str) -> Watch[Event] | None:
        execution = self.execution(kind.kind, run_id)
        return None if execution is None else LocalWatch(execution, keeps=False)

    def _from_store(
        self, kind: Kind[Event], run_id: str, prepare: Callable[[], Work[Event]] | None
    ) -> StoreWatch[Event]:
        return StoreWatch(
            run_id,
            kind,
            self.records,
            here=lambda: self._here(kind, run_id),
            take_over=None if prepare is None else lambda: self._started(prepare, _nothing),
            is_draining=lambda: self.draining,
        )


def _nothing() -> None:
    """The check of a run that exists."""
