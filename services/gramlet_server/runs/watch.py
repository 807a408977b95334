"""The events of a run for one call: from this process if it executes the run, otherwise from the store."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from gramlet.errors import Aborted, Cancelled, GramletError, NotFound, error_class
from gramlet.run.types import Progress, RunState

from gramlet_server.runs.execution import PROGRESS_SECONDS, Execution
from gramlet_server.runs.kind import Kind
from gramlet_server.runs.queue import BEAT_SECONDS, shutting_down
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

Event = TypeVar("Event")


class Watch(ABC, Generic[Event]):
    """The events of a run for one call: iterate over it once.

    Iterating raises the error that ends the run, if one does, and Cancelled after `cancel` or if the run is stopped.

    Attributes:
        run_id: The run in the store.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    @abstractmethod
    def beating(self, seconds: float | None = BEAT_SECONDS) -> Iterator[Event | None]:
        """The events, and None whenever nothing has happened for so many seconds; None: only the events."""

    def __iter__(self) -> Iterator[Event]:
        """The events."""
        return (event for event in self.beating(None) if event is not None)

    @abstractmethod
    def cancel(self) -> None:
        """The caller leaves. If the run needs callers and this was the last one, it is stopped. Returns at once."""

    def cancel_with_call(self, add_callback: Callable[[Callable[[], None]], bool]) -> None:
        """Cancels when the call that reads the events ends, however it ends.

        Args:
            add_callback: gRPC's `context.add_callback`. It returns False, and never calls back, when the call is
                already over: a call can be cancelled while its run is prepared.
        """
        if not add_callback(self.cancel):
            self.cancel()

    def join(self) -> None:  # most have nothing to wait for
        """Waits until the run has ended, if this process executes it."""


class LocalWatch(Watch[Event]):
    """The events of a run that this process executes.

    Args:
        execution: The run.
        keeps: Whether the call keeps the run going. `Execution.join_caller` has counted it then.
        ordered: Whether it is the call that ordered the run or takes it over.
    """

    def __init__(self, execution: Execution[Event], *, keeps: bool, ordered: bool = False) -> None:
        super().__init__(execution.run_id)
        self._execution = execution
        self._keeps = keeps
        self._ordered = ordered
        self._buffer = execution.subscribe()
        self._lock = threading.Lock()

    def beating(self, seconds: float | None = BEAT_SECONDS) -> Iterator[Event | None]:
        with suppress(StopIteration):
            while True:
                event = self._buffer.take(seconds)
                yield event if event is None or self._ordered else self._execution.kind.for_others(event)

    def cancel(self) -> None:
        self._buffer.cancel()
        with self._lock:
            leaves, self._keeps = self._keeps, False
        if leaves:
            self._execution.leave_caller()

    def join(self) -> None:
        self._execution.join()


class FinishedWatch(Watch[Event]):
    """The result of a run that has succeeded.

    Args:
        run_id: The run.
        kind: Its kind.
        store: Where its result is.
        resumes: Whether the call resumes the run. It may have lost the last events together with their process.
    """

    def __init__(self, run_id: str, kind: Kind[Event], store: Store, *, resumes: bool) -> None:
        super().__init__(run_id)
        self._kind = kind
        self._store = store
        self._resumes = resumes

    def beating(self, seconds: float | None = BEAT_SECONDS) -> Iterator[Event | None]:
        if self._resumes:
            yield from self._kind.reported(Run(self._store, self._kind.name, self.run_id))
        yield from self._kind.finished(self._store, self.run_id)

    def cancel(self) -> None:
        pass


class StoreWatch(Watch[Event]):
    """The events of a run that another process executes: its progress, about once a second, and at the end its result.

    Args:
        run_id: The run.
        kind: Its kind.
        records: Where its progress is.
        here: Watches the run in this process if it executes the run, which it may have taken over.
        take_over: Takes the run over once nobody executes it any more; None: the call only watches.
        is_draining: Whether this server is shutting down.
    """

    def __init__(
        self,
        run_id: str,
        kind: Kind[Event],
        records: Records,
        here: Callable[[], Watch[Event] | None],
        take_over: Callable[[], Watch[Event]] | None,
        is_draining: Callable[[], bool],
    ) -> None:
        super().__init__(run_id)
        self._kind = kind
        self._records = records
        self._here = here
        self._take_over = take_over
        self._is_draining = is_draining
        self._cancelled = threading.Event()
        self._inner: Watch[Event] | None = None

    def cancel(self) -> None:
        self._cancelled.set()
        if self._inner is not None:
            self._inner.cancel()

    def beating(self, seconds: float | None = BEAT_SECONDS) -> Iterator[Event | None]:
        reported: Progress | None = None
        looks = 0
        while not self._cancelled.is_set():
            if self._is_draining():
                raise shutting_down(self.run_id)
            record = self._records.read(self._kind.kind, self.run_id)
            if record is None:
                raise self._deleted()
            if record.info.state is RunState.SUCCEEDED:
                yield from self._kind.finished(self._records.store, self.run_id)
                return
            if inner := self._here() or self._taken_over(record):
                yield from self._events_of(inner, seconds)
                return
            self._check(record)
            looks += 1
            if record.info.progress != reported:
                reported, looks = record.info.progress, 0
                yield self._kind.remote(record.info)
            elif seconds is not None and looks * PROGRESS_SECONDS >= seconds:
                looks = 0
                yield None
            self._cancelled.wait(PROGRESS_SECONDS)
        raise Cancelled("the call was cancelled")

    def _deleted(self) -> GramletError:
        message = f"run {self.run_id} was deleted"
        # A client that is told NotFound while it resumes a run orders it again.
        return NotFound(message, field="watch_run_id") if self._take_over is None else Cancelled(message)

    def _events_of(self, inner: Watch[Event], seconds: float | None) -> Iterator[Event | None]:
        self._inner = inner
        if self._cancelled.is_set():  # before `cancel` could see it
            inner.cancel()
        yield from inner.beating(seconds)

    def _taken_over(self, record: Record) -> Watch[Event] | None:
        """The run in this process, if this call goes on with it and may."""
        if self._take_over is None or record.requested or record.info.state is RunState.FAILED:
            return None
        if self._records.is_alive(record):
            return None
        try:
            return self._take_over()
        except Aborted:  # another process was first
            return None

    def _check(self, record: Record) -> None:
        """Ends the watch with the error of a run that goes on nowhere.

        Raises:
            GramletError: The error of the run.
            Cancelled: It was stopped, or its process was lost and nobody has taken it over.
        """
        info = record.info
        if info.state is RunState.FAILED and info.error is not None:
            raise error_class(info.error.code)(info.error.message, field=info.error.field)
        if record.requested and info.state is RunState.STOPPED:
            raise Cancelled(f"run {self.run_id} was stopped: resume it to go on, unless it was deleted")
        is_waiting = info.detached and not info.state.has_ended
        # Its caller may be about to resume it, when its server was lost or shut down.
        lost = time.time() - max(record.renewed, info.updated) > 2 * self._records.lease_seconds
        if not self._records.is_alive(record) and not is_waiting and lost:
            raise Cancelled(f"run {self.run_id} was interrupted: resume it to go on")
