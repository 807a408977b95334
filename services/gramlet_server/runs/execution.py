"""A run that this process executes: its thread, its record in the store, and the callers who keep it going.

A second thread, the keeper, writes the record about once a second: it stores the progress, renews the lease, and looks
whether somebody has asked another replica to stop the run.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from gramlet.errors import (
    Aborted,
    Cancelled,
    GramletError,
    InternalError,
    InvalidInput,
    OtherWeights,
    Overloaded,
    Unavailable,
)
from gramlet.run.types import Progress, RunError, RunInfo, RunKind, RunState

from gramlet_server.process.identity import act_for, caller
from gramlet_server.runs.events import Broadcast, EventBuffer
from gramlet_server.runs.kind import Kind
from gramlet_server.runs.queue import RunQueue, Ticket
from gramlet_server.runs.records import SUMMARY, Record, Records
from gramlet_server.runs.run import Run, is_deleted

Event = TypeVar("Event")

PROGRESS_SECONDS = 1.0
"""How old the progress in the store may be."""
STOP = "stop"
"""The log of a run in which any process asks its owner to stop it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work(Generic[Event]):
    """A run that is prepared and waits for its turn.

    Attributes:
        run: The run in the store, which this process owns.
        kind: Its kind.
        events: Does the work, in the run's thread, once its turn has come. Never called for a run that is stopped or
            drained before that, so whatever has to be undone is set up inside it.
        settings: Its settings in short, for people.
        detached: Whether it goes on when its caller leaves.
        wake: Called in another thread when the run is stopped or the server shuts down, for work that may wait long.
    """

    run: Run
    kind: Kind[Event]
    events: Callable[[], Generator[Event, None, None]]
    settings: str = ""
    detached: bool = False
    wake: Callable[[], None] = lambda: None


class Execution(Generic[Event]):
    """A run in this process.

    Args:
        work: What to do.
        records: Where the record is kept.
        queue: The queue of the service.
        ticket: The run's place in it.
        ended: Called when the run has ended, however it ended.

    Attributes:
        run_id: The run in the store.
        kind: Its kind.
    """

    def __init__(
        self,
        work: Work[Event],
        records: Records,
        queue: RunQueue,
        ticket: Ticket,
        ended: Callable[[Execution[Event]], None],
    ) -> None:
        self.run_id = work.run.run_id
        self.kind = work.kind
        self._ordered = frozenset(work.run.written)  # what the order itself has stored
        self._work = work
        self._records = records
        self._queue = queue
        self._ticket = ticket
        self._report_end = ended
        self._broadcast: Broadcast[Event] = Broadcast(work.kind.replaceable, (*work.kind.opening, work.kind.result))
        self._lock = threading.Lock()  # guards the record in the store, and the callers
        self._callers = 0
        self._progress = Progress()
        self._stopping = self._requested = self._is_closed = self._is_lost = self._has_succeeded = False
        self._over = threading.Event()
        self._stops = work.run.last(STOP)[0]
        self._record = self._begin()
        # The thread runs in the context of its call, so its log lines, and the calls it makes, carry that call's id.
        context = contextvars.copy_context()
        # What the run makes is its owner's, also when the server or another name goes on with it.
        context.run(act_for, replace(caller.get(), name=self._record.info.owner))
        self._thread = threading.Thread(target=context.run, args=[self._execute], name="run", daemon=True)

    def start(self) -> None:
        """Starts the threads."""
        self._thread.start()
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    @property
    def key(self) -> tuple[RunKind, str]:
        """The kind and the id, which together name the run."""
        return self.kind.kind, self.run_id

    @property
    def detached(self) -> bool:
        """Whether the run goes on when its callers leave."""
        return self._record.info.detached

    def subscribe(self) -> EventBuffer[Event]:
        """The events from now on, for one more reader."""
        return self._broadcast.subscribe()

    def join_caller(self, detached: bool = False) -> bool:
        """One more caller keeps the run going. Returns False if the run is ending: then the caller comes too late."""
        with self._lock:
            if self._stopping or self._over.is_set():
                return False
            if detached and not self.detached and not self._is_closed:
                info = replace(self._record.info, detached=True)
                self._record = self._records.begin(self._work.run, replace(self._record, info=info))
            self._callers += 1
            return True

    def leave_caller(self) -> None:
        """A caller leaves. When the last one has left, the run is stopped, unless it is detached."""
        with self._lock:
            self._callers -= 1
            if self._callers > 0 or self.detached:
                return
            self._stopping = True  # inside the lock: who joins from now on comes too late
        self.stop(requested=False)

    def stop(self, *, requested: bool = True) -> None:
        """Stops the run within one event, or at once if it waits. What it saved can be resumed. Returns at once."""
        self._requested = self._requested or requested
        self._stopping = True
        self._queue.cancel(self._ticket)
        self.wake()

    def wake(self) -> None:
        """Lets work that waits look whether it has to end."""
        self._work.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Waits until the run has left the queue and its record says how it ended; whether it has."""
        return self._over.wait(timeout)

    # --- the run's thread ---

    def _execute(self) -> None:
        error: BaseException | None = None
        try:
            for position in self._queue.positions(self._ticket):
                self._broadcast.put(self._work.kind.queued(self.run_id, position))
            self._write(state=RunState.RUNNING)
            with closing(self._work.events()) as events:
                for event in events:
                    if self._stopping:
                        break
                    self._happened(event)
        except BaseException as raised:
            error = raised
        finally:
            self._end(error)

    def _happened(self, event: Event) -> None:
        kind = self._work.kind
        self._progress = kind.progress(event, self._progress)
        if isinstance(event, kind.result):
            # Written before anybody gets the result, so that a caller who has it finds the run succeeded.
            self._close(RunState.SUCCEEDED, outcome=kind.outcome(event))
            self._has_succeeded = True
        self._broadcast.put(event)

    def _end(self, error: BaseException | None) -> None:
        try:
            self._close_after(error)
        except Exception as failed:
            _log.warning("the end of run %s could not be stored: %s", self.run_id, failed)
        finally:
            self._queue.leave(self._ticket)
            self._report_end(self)
            self._over.set()
            self._broadcast.end(self._error_for_readers(error))

    def _error_for_readers(self, error: BaseException | None) -> BaseException | None:
        if self._has_succeeded:
            return None
        if self._is_lost or isinstance(error, Aborted):
            return self._lost()
        if self._stopping:
            return Cancelled(f"run {self.run_id} was stopped: resume it to go on, unless it was deleted")
        return error

    def _lost(self) -> GramletError:
        """Why this process no longer owns the run. Who resumed a deleted run would order it again, or join another."""
        with suppress(GramletError):  # the store fails: who resumes the run finds out
            if is_deleted(self._work.run):
                return Cancelled(f"run {self.run_id} was deleted")
        return Unavailable(f"run {self.run_id} goes on at another replica: resume it", retry_after=0.0)

    def _close_after(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Cancelled) and (self._stopping or self.detached):
            # There may be no call left that would log it.
            traceback = None if isinstance(error, GramletError) else error
            _log.warning("run %s ended with %r", self.run_id, error, exc_info=traceback)
        match error:
            case Aborted():
                self._is_closed = True  # another process owns the run, and writes its record
            case _ if self._stopping or error is None or isinstance(error, Cancelled):
                self._close(RunState.STOPPED)
            case Overloaded() | InvalidInput() if self._is_refused(error):
                # The caller knows why, and may send another order with the same id.
                with self._lock:
                    self._is_closed = True
                    self._records.delete(self._record)
            case Unavailable() | Overloaded() | OtherWeights():
                # The server shuts down, the network stayed lost or was replaced, or its queue is full. A detached run
                # waits for a replica that goes on with it.
                self._close(RunState.QUEUED if self.detached else RunState.STOPPED)
            case GramletError():
                self._close(RunState.FAILED, RunError(error.code.value, error.message, error.field))
            case _:
                bug = InternalError("a bug in gramlet: the log of the server that executed the run has more")
                self._close(RunState.FAILED, RunError(bug.code.value, bug.message))

    def _is_refused(self, error: BaseException) -> bool:
        """Whether nothing was done and a caller gets the error. A detached run with a wrong order is kept."""
        is_untouched = self._is_new and self._work.run.written <= self._ordered | {SUMMARY}
        return is_untouched and self._callers > 0 and not (self.detached and isinstance(error, InvalidInput))

    # --- the record ---

    def _begin(self) -> Record:
        work, now = self._work, time.time()
        before = self._records.read(work.kind.kind, self.run_id)
        self._is_new = before is None
        if before is None:
            info = RunInfo(self.run_id, work.kind.kind, created=now, settings=work.settings, owner=caller.get().name)
        else:
            info = replace(before.info, ended=None, error=None)
        detached = work.detached or info.detached
        info = replace(info, state=RunState.QUEUED, updated=now, detached=detached)
        return self._records.begin(work.run, Record(info))

    def _keep(self) -> None:
        """Renews the lease, stores the progress, and looks for requests to stop, until the run ends."""
        third = self._records.lease_seconds / 3
        while not self._over.wait(min(PROGRESS_SECONDS, third)):
            try:
                record = self._record
                if self._progress != record.info.progress or time.time() - record.renewed >= third:
                    self._write()
                if self._work.run.last(STOP)[0] > self._stops:
                    self.stop()
            except Aborted:
                self._is_lost = self._is_closed = True
                self.stop(requested=False)  # another process owns the run; the work would find out later
                return
            except GramletError as error:
                _log.warning("the progress of run %s could not be stored, trying again: %s", self.run_id, error)

    def _write(self, **changes: Any) -> None:
        with self._lock:
            if self._is_closed:
                return
            info = replace(self._record.info, progress=self._progress, **changes)
            if info != self._record.info:
                info = replace(info, updated=time.time())
            self._record = self._records.write(self._work.run, replace(self._record, info=info))

    def _close(self, state: RunState, error: RunError | None = None, outcome: str = "") -> None:
        """Writes the last record of this execution."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            now = time.time()
            ended = now if state.has_ended else None
            info = replace(
                self._record.info, state=state, progress=self._progress, error=error, updated=now, ended=ended
            )
            record = replace(self._record, info=info, released=True, requested=self._requested, outcome=outcome)
            self._record = self._records.write(self._work.run, record)
