"""Deletes old runs from the store, and what interrupted deletions have left. See deletion.py."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gramlet.errors import DataLoss, GramletError
from gramlet.run.types import RunKind

from gramlet_server.runs.deletion import erase_left, finish
from gramlet_server.runs.layout import Listing
from gramlet_server.runs.records import Records
from gramlet_server.runs.store import Entry, Store

SETTLED = timedelta(hours=1)
"""The longest time in which a request that was given up may still arrive at the store."""

_log = logging.getLogger(__name__)


def sweep_runs(
    store: Store,
    kind: str,
    older_than: timedelta | None,
    *,
    settled: timedelta = SETTLED,
    now: datetime | None = None,
    keeps: Callable[[str], bool] = lambda _: False,
) -> int:
    """Deletes the runs whose last write is longer ago than `older_than`, and what interrupted deletions have left.

    Args:
        store: The store.
        kind: The kind of the runs.
        older_than: How long runs are kept; None: for ever.
        settled: The longest time in which a request that was given up may still arrive.
        now: The time.
        keeps: Whether the run of an id stays, however old it is.

    Returns:
        How many runs were deleted.
    """
    times = _Times(now or datetime.now(UTC), older_than, settled)
    by_run: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.list(f"runs/{kind}"):
        if len(parts := entry.key.split("/")) > 3:  # not a file that gramlet did not write
            by_run[parts[2]].append(entry)
    return sum(_sweep(store, kind, run_id, entries, times, keeps) for run_id, entries in by_run.items())


def sweep_cache(store: Store, prefix: str, older_than: timedelta | None, *, now: datetime | None = None) -> int:
    """Deletes the keys below a prefix that were written longer ago than `older_than`; returns how many.

    They are deleted in order, so that of a pack of features the keys go before the features.
    """
    if older_than is None:
        return 0
    time_now = now or datetime.now(UTC)
    old = [entry.key for entry in store.list(prefix) if time_now - entry.modified >= older_than]
    for key in old:
        store.delete(key)
    return len(old)


def keep_sweeping(
    store: Store,
    kind: str,
    older_than: timedelta | None,
    *,
    cache: str = "",
    keeps: Callable[[str], bool] = lambda _: False,
    every: timedelta = timedelta(hours=1),
) -> None:
    """Sweeps again and again while the process lives, in a thread of its own. Several replicas may do so at once.

    Args:
        store: The store.
        kind: Of the runs.
        older_than: How long runs are kept; None: for ever.
        cache: The prefix of a cache that is swept as well; empty: none.
        keeps: As in `sweep_runs`.
        every: How often.
    """

    def sweep() -> None:
        while True:
            try:
                if swept := sweep_runs(store, kind, older_than, keeps=keeps):
                    _log.info("%d %s run(s) older than %s removed from the store", swept, kind, older_than)
                if cache:
                    sweep_cache(store, cache, older_than)
                Records(store).repair(RunKind(kind))
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


def _sweep(
    store: Store, kind: str, run_id: str, entries: Sequence[Entry], times: _Times, keeps: Callable[[str], bool]
) -> bool:
    """Sweeps the keys of one run id; returns whether an old run was deleted. A damaged one stays."""
    try:
        if times.is_old(entries) and keeps(run_id):
            times = replace(times, older_than=None)
        return _sweep_intact(store, f"runs/{kind}/{run_id}", entries, times)
    except DataLoss as error:
        store.report(error)
        return False


def _sweep_intact(store: Store, place: str, entries: Sequence[Entry], times: _Times) -> bool:
    is_old = times.is_old(entries)
    if not is_old and (_is_in_order(place, entries) or not times.has_settled(entries)):
        return False
    folder = erase_left(store, place, entries)
    if folder is None:
        return False
    listing = folder.list()
    latest = listing.entries or entries
    if not (times.has_settled(latest) if listing.is_deleted else times.is_old(latest)):
        return False
    # Nobody may have taken the run over since it was listed; from the next line on, nobody can.
    if not folder.bury(listing.epoch + 1):
        return False
    finish(store, folder)
    return not listing.is_deleted


def _is_in_order(place: str, entries: Sequence[Entry]) -> bool:
    """Whether the keys are those of one run that exists."""
    folders = {entry.key.split("/")[3] for entry in entries}
    return len(folders) == 2 and any(
        Listing.of(entries, f"{place}/{folder}/").is_alive for folder in folders - {"current"}
    )


def _newest(entries: Sequence[Entry]) -> datetime:
    return max(entry.modified for entry in entries)
