"""Ends calls whose callers are silent or slow: that send no message, or take no reply, for too long.

gRPC's threads wait for a message without a limit. One thread of this module watches all of these waits and ends the
calls whose time is over, so that a caller who sends nothing cannot hold a thread, a turn or memory.

A caller who sends a little again and again is never silent for long. So each call has a `Pace`, as in Apache's
mod_reqtimeout (`body=15,MinRate=16384`): the server waits 15 s for it in all, and one second more for each 16 KiB that
arrive. The pace counts only the time in which the server waits, and it ends a call only when others need what the call
holds: its turn, its thread or its memory.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from gramlet.errors import DeadlineExceeded, GramletError, Overloaded

_TICK_SECONDS = 0.25
_TOO_SLOW = "this one was silent or slow: begin it when its data are ready, and send them without a pause"
PACE_SECONDS = 15.0
"""How long the server waits for a caller, in all, while others need what the call holds."""
PACE_BYTES = 16 * 1024
"""For so many bytes it waits a second more, but never more than PACE_SECONDS from then on."""
FIRST_PACE_SECONDS = 1.0
"""The same for the first message: that of an honest caller follows its headers at once."""

_log = logging.getLogger(__name__)


class Pace:
    """How long a call may still wait for its caller while others need what it holds.

    Attributes:
        left: Seconds; not more than PACE_SECONDS.
    """

    def __init__(self, seconds: float = PACE_SECONDS) -> None:
        self.left = seconds

    def moved(self, waited: float, size: int) -> None:
        """A message came, or was taken.

        Args:
            waited: Seconds that the server waited for it.
            size: Its bytes.
        """
        self.left = min(PACE_SECONDS, max(0.0, self.left - waited) + size / PACE_BYTES)


@dataclass(eq=False)
class Wait:
    """A call that waits for its caller.

    Attributes:
        context: gRPC's.
        ends: On the monotonic clock, when the call is ended.
        late: What the caller is told then.
        receives: Whether the call waits for a message. Otherwise it sends one.
        group: The calls that make room for each other; empty: the call makes room for none.
        others_wait: Whether others wait for what the call holds.
        patience: Seconds after which the call may be ended because others need what it holds.
        error: What the call was ended with, once it was.
        seconds: How long the wait was, once it is over.
    """

    context: grpc.ServicerContext
    ends: float
    late: GramletError
    receives: bool
    group: str
    others_wait: Callable[[], bool]
    patience: float
    started: float = field(default_factory=time.monotonic)
    error: GramletError | None = None
    seconds: float = 0.0


class Silences:
    """All waits of a process for its callers.

    Args:
        clock: Seconds of a monotonic clock.
        is_short_of_memory: Whether the process has nearly no memory left.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        is_short_of_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._is_short_of_memory = is_short_of_memory
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    @contextmanager
    def limited(
        self,
        context: grpc.ServicerContext,
        seconds: float,
        reason: str,
        *,
        group: str = "",
        receives: bool = False,
        error: type[GramletError] = DeadlineExceeded,
        others_wait: Callable[[], bool] = lambda: False,
        patience: float = FIRST_PACE_SECONDS,
    ) -> Iterator[Wait]:
        """Ends the call if the wait inside takes longer than `seconds`; 0: there is no limit.

        Args:
            context: gRPC's.
            seconds: The limit.
            reason: What the caller is told then.
            group: The calls that make room for each other; empty: the call makes room for none.
            receives: Whether the call waits for a message.
            error: The kind of the error.
            others_wait: Whether others wait for what the call holds.
            patience: Seconds after which it is ended if they do, and may be ended to make room.
        """
        now = self._clock()
        ends = now + seconds if seconds else math.inf
        wait = Wait(context, ends, error(reason), receives, group, others_wait, patience, now)
        with self._lock:
            self._waits.add(wait)
            if self._watcher is None and not self._closed.is_set():
                self._watcher = threading.Thread(target=self._watch, name="silences", daemon=True)
                self._watcher.start()
        try:
            yield wait
        finally:
            wait.seconds = self._clock() - now
            with self._lock:
                self._waits.discard(wait)

    def end_late(self) -> None:
        """Ends the calls whose time is over."""
        now = self._clock()
        with self._lock:
            waits = list(self._waits)
        for wait in waits:
            if wait.ends <= now:
                self._end(wait, wait.late)
            elif now - wait.started > wait.patience and wait.others_wait():
                self._end(wait, Overloaded(f"others wait for what this call holds, and {_TOO_SLOW}"))

    def make_room(self, group: str, at_most: int = 0) -> bool:
        """Ends the call of a group that has waited longest, if more than `at_most` wait.

        Calls whose patience is not used up stay: the message of an honest caller is on its way.

        Returns:
            Whether a call was ended.
        """
        now = self._clock()
        with self._lock:
            waits = [wait for wait in self._waits if wait.group == group]
        slow = (wait for wait in waits if now - wait.started >= wait.patience)
        slowest = min(slow, key=lambda wait: wait.started, default=None)
        if slowest is None or len(waits) <= at_most:
            return False
        self._end(slowest, Overloaded(f"the server is full, and {_TOO_SLOW}"))
        return True

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    def shed(self) -> None:
        """Ends the calls that have waited for a message for more than a second, when the memory is nearly used up.

        gRPC holds what it has of a message until the message is complete, and does not say how much that is.
        """
        if not self._is_short_of_memory():
            return
        now = self._clock()
        with self._lock:
            waits = [wait for wait in self._waits if wait.receives and now - wait.started > FIRST_PACE_SECONDS]
        for wait in waits:
            self._end(
                wait, Overloaded("the server's memory is in use, and the message was not complete: send it again")
            )

    def _watch(self) -> None:
        while not self._closed.wait(_TICK_SECONDS):
            self.end_late()
            self.shed()

    def _end(self, wait: Wait, error: GramletError) -> None:
        with self._lock:
            if wait not in self._waits:
                return
            self._waits.discard(wait)
            wait.error = error
        end_call(wait.context, error)


def end_call(context: grpc.ServicerContext, error: GramletError) -> None:
    """Ends a call from another thread than the one that serves it, with the code of an error."""
    try:
        # gRPC's public `cancel` sends CANCELLED, which says nothing. The call below it takes a status.
        context._rpc_event.call.cancel(int(error.code), str(error))  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        context.cancel()


def status_code(error: GramletError) -> grpc.StatusCode:
    """gRPC's name for the code of an error."""
    return next(code for code in grpc.StatusCode if code.value[0] == error.code)
