"""The end of a program that has calls under way.

Python stops gRPC's threads where they are, and then collects the calls. Each call takes a lock for that, which one of
the stopped threads may hold: such a program does not end. So the calls are canceled before, and the threads ended.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

_SECONDS = 2.0
"""How long the end of a program waits for gRPC."""


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
        self._is_ending = False

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
            self._is_ending = True
            closes = list(self._closes.values())
        for close in closes:
            close()
        with self._none_left:
            self._none_left.wait_for(lambda: not self._closes, _SECONDS)
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def hold_daemon(self) -> None:
        """Holds a daemon thread whose call was canceled by the end, so that it does not report that as its failure.

        Python is about to stop the thread, wherever it is.
        """
        if self._is_ending and self._process == os.getpid() and threading.current_thread().daemon:
            threading.Event().wait()

    def _ended(self, call: Call) -> None:
        self.served_by_this_thread()
        with self._none_left:
            self._closes.pop(call, None)
            self._none_left.notify_all()


calls_under_way = _CallsUnderWay()
atexit.register(calls_under_way.end)
