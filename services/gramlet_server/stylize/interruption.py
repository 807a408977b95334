"""Ends a stylization from another thread, even while it waits for the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gramlet.errors import Cancelled

from gramlet_server.feature_source import Descent


class Interruption:
    """What another thread wants of a stylization: that it ends, with its state or at once.

    Args:
        check_draining: Raises Unavailable when the server is shutting down. The state is then wanted.
        is_draining: The same as a question.
    """

    def __init__(
        self, check_draining: Callable[[], None] = lambda: None, is_draining: Callable[[], bool] = lambda: False
    ) -> None:
        self.check_draining = check_draining
        self._is_draining = is_draining
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._descent: Descent | None = None
        self._has_begun = False

    def wake(self) -> None:
        """Ends the descent under way, and every later one. Called when the run is cancelled or the server drains.

        A second call does not wait for a state any more.
        """
        with self._lock:
            self._end(at_once=self._woken.is_set())
            self._woken.set()

    @contextmanager
    def of(self, descent: Descent) -> Iterator[None]:
        """`wake` ends this descent, as long as the context lasts."""
        with self._lock:
            self._descent, self._has_begun = descent, False
            if self._woken.is_set():
                self._end(at_once=True)
        try:
            yield
        finally:
            with self._lock:
                self._descent = None

    def begun(self) -> None:
        """The descent has left the device's queue: from now on it has a state that would be lost."""
        with self._lock:
            self._has_begun = True

    def wait(self, seconds: float) -> None:
        """Waits so long, or until `wake`.

        Raises:
            Unavailable: The server is shutting down.
            Cancelled: The run was cancelled.
        """
        if self._woken.wait(seconds):
            self.check_draining()
            raise Cancelled("the run was cancelled")

    def _end(self, at_once: bool) -> None:
        if self._descent is None:
            return
        if self._has_begun and self._is_draining() and not at_once:
            self._descent.stop()
        else:
            self._descent.cancel()
