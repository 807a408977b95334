"""Whether the store works: tried at the start, then again and again, and at once when a request to it has failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from gramlet.errors import GramletError

from gramlet_server.runs.store import Store

CHECK_SECONDS = 15.0
"""Between two checks of a store that works."""
RETRY_SECONDS = 2.0
"""Between two checks of a store that fails."""

_log = logging.getLogger(__name__)

Report = Callable[[GramletError | None], None]
"""Takes the reason why a store does not work, or None if it works."""


class StoreMonitor:
    """Watches a store in a thread of its own, until it is closed.

    Args:
        store: The store. The first check has ended when the constructor returns.
        check_seconds: Between two checks while it works.
        retry_seconds: Between two checks while it fails.
    """

    def __init__(
        self, store: Store, check_seconds: float = CHECK_SECONDS, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._store = store
        self._check_seconds = check_seconds
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        self._closed = threading.Event()
        self._error = self._check()
        self._thread = threading.Thread(target=self._watch, name="watch-store", daemon=True)
        self._thread.start()

    def subscribe(self, report: Report) -> None:
        """Reports whether the store works, now and whenever that changes."""
        with self._lock:
            self._reports.append(report)
            report(self._error)

    def close(self) -> None:
        """Ends the thread, at the latest after the check under way."""
        self._closed.set()
        self._store.failed.set()

    def _watch(self) -> None:
        while not self._is_closed_after_pause():
            error = self._check()
            if (error is None) is not (self._error is None):
                _log.warning("the store works again" if error is None else "the store fails: calls that need it do too")
                self._change(error)

    def _change(self, error: GramletError | None) -> None:
        with self._lock:
            self._error = error
            for report in self._reports:
                report(error)

    def _is_closed_after_pause(self) -> bool:
        if self._error is None:
            self._store.failed.wait(self._check_seconds)
            return self._closed.is_set()
        return self._closed.wait(self._retry_seconds)

    def _check(self) -> GramletError | None:
        self._store.failed.clear()
        try:
            self._store.check()
        except GramletError as error:
            return error
        return None
