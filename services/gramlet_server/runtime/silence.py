"""Ends calls whose callers are silent: that send no message, or take no reply, for too long.

gRPC's threads wait for a message without a limit. One thread of this module watches all of these waits and ends the
calls whose time is over, so that a caller who sends nothing cannot hold a thread, a turn or memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from gramlet.errors import DeadlineExceeded, GramletError, Overloaded

_TICK_SECONDS = 0.25
# A message of an honest caller follows its headers at once. A call that has waited longer may make room for another.
_MAKES_ROOM_SECONDS = 1.0
_WHILE_OTHERS_WAIT_SECONDS = 15.0

_log = logging.getLogger(__name__)


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
        error: What the call was ended with, once it was.
    """

    context: grpc.ServicerContext
    ends: float
    late: GramletError
    receives: bool
    group: str
    others_wait: Callable[[], bool]
    started: float = field(default_factory=time.monotonic)
    error: GramletError | None = None


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
    ) -> Iterator[Wait]:
        """Ends the call if the wait inside takes longer than `seconds`; 0: there is no limit.

        Args:
            context: gRPC's.
            seconds: The limit.
            reason: What the caller is told then.
            group: The calls that make room for each other; empty: the call makes room for none.
            receives: Whether the call waits for a message.
            error: The kind of the error.
            others_wait: Whether others wait for what the call holds. It is then ended much sooner.
        """
        now = self._clock()
        wait = Wait(
            context, now + seconds if seconds else float("inf"), error(reason), receives, group, others_wait, now
        )
        with self._lock:
            self._waits.add(wait)
            if self._watcher is None and not self._closed.is_set():
                self._watcher = threading.Thread(target=self._watch, name="silences", daemon=True)
                self._watcher.start()
        try:
            yield wait
        finally:
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
            elif now - wait.started > _WHILE_OTHERS_WAIT_SECONDS and wait.others_wait():
                message = f"others wait for the turn of this run, and nothing came for {_WHILE_OTHERS_WAIT_SECONDS:g} s"
                self._end(wait, Overloaded(f"{message}: order it when its data are ready"))

    def make_room(self, group: str, at_most: int = 0, after: float = _MAKES_ROOM_SECONDS) -> bool:
        """Ends the call of a group that has waited longest, if more than `at_most` wait.

        Calls that have waited for less than `after` seconds stay: the message of an honest caller is on its way.

        Returns:
            Whether a call was ended.
        """
        with self._lock:
            waits = [wait for wait in self._waits if wait.group == group]
        longest = min(waits, key=lambda wait: wait.started, default=None)
        if longest is None or len(waits) <= at_most or self._clock() - longest.started < after:
            return False
        self._end(longest, Overloaded("the server is full, and this call was silent: send its message at once"))
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
            waits = [wait for wait in self._waits if wait.receives and now - wait.started > _MAKES_ROOM_SECONDS]
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
