"""Deletes runs: one that is no longer wanted, and old ones.

1. An empty key `owner` in the next epoch. From then on the run is gone, and nobody can take it over.
2. The key `current`, by the process that made step 1. Then the id is free, and nobody comes to the folder any more.
3. Everything in the folder. If the process is stopped before the end, any process does this.

If the process is stopped between 1 and 2, its delete of `current` could arrive late and hit a new run of the same id. So
others leave `current` alone for an hour. Then the next sweep begins again with step 1.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gramlet.errors import GramletError

from gramlet_server.runs.layout import Folder
from gramlet_server.runs.store import Entry, Store

SETTLED = timedelta(hours=1)
"""The longest time in which a request that was given up may still arrive at the store."""

_log = logging.getLogger(__name__)


def delete_run(store: Store, kind: str, run_id: str) -> None:
    """Deletes a run with all of its values and logs, and what an interrupted deletion has left of an earlier one."""
    place = f"runs/{kind}/{run_id}"
    while folder := Folder.current(store, place):
        listing = folder.list()
        if listing.is_deleted:
            _erase(store, folder)  # another process deletes it, or has begun to
            break
        if folder.bury(listing.epoch + 1):
            _finish(store, folder)
            break
    _erase_left(store, place, store.list(place))


def sweep_runs(
    store: Store,
    kind: str,
    older_than: timedelta | None,
    *,
    settled: timedelta = SETTLED,
    now: datetime | None = None,
) -> int:
    """Deletes the runs whose last write is longer ago than `older_than`, and what interrupted deletions have left.

    Args:
        store: The store.
        kind: The kind of the runs.
        older_than: How long runs are kept; None: for ever.
        settled: The longest time in which a request that was given up may still arrive.
        now: The time.

    Returns:
        How many runs were deleted.
    """
    times = _Times(now or datetime.now(UTC), older_than, settled)
    by_run: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.list(f"runs/{kind}"):
        by_run[entry.key.split("/")[2]].append(entry)
    return sum(_sweep(store, f"runs/{kind}/{run_id}", entries, times) for run_id, entries in by_run.items())


def keep_sweeping(store: Store, kind: str, older_than: timedelta | None, every: timedelta = timedelta(hours=1)) -> None:
    """Sweeps again and again while the process lives, in a thread of its own. Several replicas may do so at once."""

    def sweep() -> None:
        while True:
            try:
                if swept := sweep_runs(store, kind, older_than):
                    _log.info("%d %s run(s) older than %s removed from the store", swept, kind, older_than)
            except GramletError as error:
                _log.warning("old %s runs could not be removed, trying again later: %s", kind, error)
            time.sleep(every.total_seconds())

    threading.Thread(target=sweep, name=f"sweep-{kind}", daemon=True).start()


@dataclass(frozen=True)
class _Times:
    now: datetime
    older_than: timedelta | None
    settled: timedelta

    def is_old(self, entries: Sequence[Entry]) -> bool:
        """Whether a run with these keys is to be deleted."""
        return self.older_than is not None and self.now - _newest(entries) >= self.older_than

    def has_settled(self, entries: Sequence[Entry]) -> bool:
        """Whether no request that belongs to these keys can still arrive."""
        return self.now - _newest(entries) >= self.settled


def _sweep(store: Store, place: str, entries: Sequence[Entry], times: _Times) -> bool:
    """Sweeps the keys of one run id; returns whether an old run was deleted."""
    is_old = times.is_old(entries)
    if not (is_old or times.has_settled(entries)):
        return False
    folder = _erase_left(store, place, entries)
    if folder is None:
        return False
    listing = folder.list()
    latest = listing.entries or entries
    if not (times.has_settled(latest) if listing.is_deleted else times.is_old(latest)):
        return False
    # Nobody may have taken the run over since it was listed; from the next line on, nobody can.
    if not folder.bury(listing.epoch + 1):
        return False
    _finish(store, folder)
    return not listing.is_deleted


def _newest(entries: Sequence[Entry]) -> datetime:
    return max(entry.modified for entry in entries)


def _finish(store: Store, folder: Folder) -> None:
    """Steps 2 and 3, after step 1."""
    if folder.is_current:
        store.delete(f"{folder.place}/current")
    _erase(store, folder)
    store.clear(folder.key("").rstrip("/"))


def _erase(store: Store, folder: Folder) -> None:
    """Deletes everything in a folder of a run that is being deleted, but the empty keys `owner`."""
    while entries := [entry for entry in folder.list().entries if entry.size or not entry.key.endswith("/owner")]:
        for entry in entries:
            store.delete(entry.key)


def _erase_left(store: Store, place: str, entries: Sequence[Entry]) -> Folder | None:
    """Deletes those of the keys that are in folders of deleted runs. Returns the folder of the run that is not."""
    folder = Folder.current(store, place)
    for entry in entries:
        if entry.key != f"{place}/current" and not (folder and entry.key.startswith(folder.key(""))):
            store.delete(entry.key)
    return folder
