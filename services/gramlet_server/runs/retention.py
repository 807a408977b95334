"""Deletes old runs from the store."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

from gramlet.errors import GramletError
from gramlet.run.types import RunKind

from gramlet_server.runs.records import Records
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

_log = logging.getLogger(__name__)


def sweep_runs(store: Store, kind: str, older_than: timedelta) -> int:
    """Deletes the runs whose last write is longer ago than `older_than`; returns how many."""
    newest: dict[str, datetime] = {}
    for entry in store.list(f"runs/{kind}"):
        run_id = entry.key.split("/")[2]
        newest[run_id] = max(entry.modified, newest.get(run_id, entry.modified))
    stale = [run_id for run_id, modified in newest.items() if datetime.now(UTC) - modified > older_than]
    for run_id in stale:
        Run(store, kind, run_id, 0).delete()
    return len(stale)


def keep_sweeping(store: Store, kind: str, older_than: timedelta, every: timedelta = timedelta(hours=1)) -> None:
    """Sweeps again and again while the process lives, in a thread of its own. Several replicas may do so at once."""

    def sweep() -> None:
        while True:
            try:
                if swept := sweep_runs(store, kind, older_than):
                    _log.info("%d %s run(s) older than %s removed from the store", swept, kind, older_than)
                Records(store).repair(RunKind(kind))
            except GramletError as error:
                _log.warning("old %s runs could not be removed, trying again later: %s", kind, error)
            time.sleep(every.total_seconds())

    threading.Thread(target=sweep, name=f"sweep-{kind}", daemon=True).start()
