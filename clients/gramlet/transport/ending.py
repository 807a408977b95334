"""Calls that would not end: those under way when a program ends, and those whose servers are silent.

Python stops gRPC's threads where they are, and then collects the calls. Each call takes a lock for that, which one of
the stopped threads may hold: such a program does not end. So the calls are canceled before, and the threads ended.

A synchronous read of gRPC waits without a limit. So a thread cancels the calls whose replies are late.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from gramlet.errors import Unavailable

_SECONDS = 2.0
"""How long the end of a program waits for gRPC."""
_TICK_SECONDS = 0.5
_IDLE_TICKS = 20
"""How long the thread that looks for late replies stays while nothing is read."""


class Call(Protocol):
    """A call of gRPC."""

    def add_callback(self, callback: Callable[[], None], /) -> bool: ...


class _CallsUnderWay:
    """The calls of this process that have not ended, and the threads in which gRPC serves them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closes: dict[Call, Callable[[], None]] = {}
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._none_left = threading.Condition(self._lock)
        self._ending = threading.Event()

    def add(self, call: Call, close: Callable[[], None]) -> None:
        """Remembers a call until it has ended, and how to close it."""
        with self._lock:
            if self._process != os.getpid():  # after a fork the calls are the parent's
                self._process, self._closes, self._threads = os.getpid(), {}, WeakSet()
            self._closes[call] = close
        if not call.add_callback(lambda: self._ended(call)):
            self._ended(call)

    def served_by_this_thread(self) -> None:
        """Remembers the current thread as one of gRPC's."""
        with self._lock:
            self._threads.add(threading.current_thread())

    def end(self) -> None:
        """Closes all calls, and waits a moment for the threads that serve them."""
        if self._process != os.getpid():
            return
        until = time.monotonic() + _SECONDS
        with self._lock:
            self._ending.set()
            closes = list(self._closes.values())
        for close in closes:
            close()
        with self._none_left:
            self._none_left.wait_for(lambda: not self._closes, _SECONDS)
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def wait_for_end(self, seconds: float) -> bool:
        """Waits so long; whether the program ends."""
        return self._ending.wait(seconds)

    def hold_daemon(self) -> None:
        """Holds a daemon thread whose call was canceled by the end, so that it does not report that as its failure.

        Python is about to stop the thread, wherever it is.
        """
        if self._ending.is_set() and self._process == os.getpid() and threading.current_thread().daemon:
            threading.Event().wait()

    def _ended(self, call: Call) -> None:
        self.served_by_this_thread()
        with self._none_left:
            self._closes.pop(call, None)
            self._none_left.notify_all()


calls_under_way = _CallsUnderWay()
atexit.register(calls_under_way.end)


@dataclass(eq=False)
class Read:
    """A read that waits for a reply.

    Attributes:
        ends: On the monotonic clock, when it is given up.
        cancel: Gives it up.
        is_late: Whether it was given up.
    """

    ends: float
    cancel: Callable[[], object]
    is_late: bool = False


class Reads:
    """The reads of a connection. One thread watches all of them, as long as there are any."""

    def __init__(self) -> None:
        self._reads: set[Read] = set()
        self._lock = threading.Lock()
        self._is_watched = False

    @contextmanager
    def limited(self, seconds: float, cancel: Callable[[], object]) -> Iterator[Read]:
        """Calls `cancel`, in another thread, if the read inside takes longer than this."""
        read = Read(time.monotonic() + seconds, cancel)
        with self._lock:
            self._reads.add(read)
            begins, self._is_watched = not self._is_watched, True
        if begins:
            threading.Thread(target=self._watch, name="gramlet-silence", daemon=True).start()
        try:
            yield read
        finally:
            with self._lock:
                self._reads.discard(read)

    def _watch(self) -> None:
        calls_under_way.served_by_this_thread()
        idle = 0
        while True:
            if calls_under_way.wait_for_end(_TICK_SECONDS):
                return
            with self._lock:
                idle = 0 if self._reads else idle + 1
                if idle == _IDLE_TICKS:
                    self._is_watched = False
                    return
                now = time.monotonic()
                late = [read for read in self._reads if read.ends <= now]
                self._reads.difference_update(late)
            for read in late:
                read.is_late = True
                read.cancel()


def silent(address: str, seconds: float) -> Unavailable:
    """The error of a call that was given up."""
    return Unavailable(f"the server at {address} has sent nothing for {seconds:g} s")
