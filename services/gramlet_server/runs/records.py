"""What the store knows about every run: its record, an index of all runs by time, and which ones need no caller.

    runs/<kind>/<run id>/<folder>/<epoch>/summary.<number>   the record, which the owner of the run writes: state,
                                                             progress, lease
    index/<kind>/<reversed time>-<run id>                    empty; its name puts the newest run first
    detached/<kind>/<run id>                                 empty; there as long as a detached run has not ended

The record is also the lease of the process that executes the run. The process writes it again before the lease ends. A
run whose lease has ended may be taken over. Leases compare the clocks of two machines, so the clocks must not differ by
more than the lease; if they do, a run is taken over too early, which costs work but, because of the fence, no data.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from gramlet.errors import DataLoss, InvalidInput, NotFound
from gramlet.json_codec import from_json, to_json
from gramlet.run.types import RunFilter, RunInfo, RunKind, RunPage, RunState

from gramlet_server.process.identity import check_may_see, may_see
from gramlet_server.runs.layout import Folder
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

SUMMARY = "summary"
LEASE_SECONDS = 15.0
PAGE_SIZE, LARGEST_PAGE = 50, 1000
_READERS = 16
_KINDS = {kind.value for kind in RunKind}
_LATEST = 10**13 - 1  # milliseconds; reversed times have 13 digits until the year 2286


@dataclass(frozen=True)
class Record:
    """A run as its owner last described it.

    Attributes:
        info: All but its size.
        renewed: When the record was written, in seconds since 1970.
        released: Nobody executes the run, so there is no lease.
        requested: It was stopped on request, and not because its caller left or its replica was lost.
        outcome: Its result in short, if it has one that fits here.
    """

    info: RunInfo
    renewed: float = 0.0
    released: bool = False
    requested: bool = False
    outcome: str = ""


class Records:
    """The records of all runs in a store.

    Args:
        store: Where they are.
        lease_seconds: How long a process that does not renew a lease keeps it.
    """

    def __init__(self, store: Store, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = store
        self.lease_seconds = lease_seconds

    def begin(self, run: Run, record: Record) -> Record:
        """Writes the record of a run that is new, or that has a new owner."""
        self.store.put(_index_key(record.info), b"")
        if record.info.detached:
            self.store.put(_detached_key(record.info), b"")
        return self.write(run, record)

    def write(self, run: Run, record: Record) -> Record:
        """Writes the record, which renews the lease. Returns what was written.

        Raises:
            Aborted: Another process owns the run now.
        """
        record = replace(record, renewed=time.time())
        run.put(SUMMARY, to_json(record))
        if record.info.state.has_ended and record.info.detached:
            self.store.delete(_detached_key(record.info))
        return record

    def read(self, kind: RunKind, run_id: str) -> Record | None:
        """The record of a run; None if the store has none, or if the run is another's than the caller's.

        Raises:
            DataLoss: It is damaged, so that nobody knows whose run it is.
        """
        record = self._read(kind, run_id)
        return record if record is None or may_see(record.info.owner) else None

    def check_visible(self, kind: RunKind, run_id: str, field: str = "run_id") -> None:
        """Hides a run that is another's than the caller's.

        Raises:
            NotFound: It is.
        """
        record = self._read(kind, run_id)
        check_may_see(record.info.owner if record else "", f"the store has no run {run_id}", field)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """The owner and the bytes of every run. Runs that are just being created have no owner yet."""
        sizes: Counter[str] = Counter()
        for entry in self.store.list("runs"):
            if len(parts := entry.key.split("/")) > 4:
                sizes["/".join(parts[:4])] += entry.size
        with ThreadPoolExecutor(_READERS, thread_name_prefix="runs") as pool:
            owners = list(pool.map(self._owner, sizes))
        for owner, size in zip(owners, sizes.values(), strict=True):
            yield owner or "", size

    def owner(self, kind: RunKind, run_id: str) -> str | None:
        """The owner of a run; None if the store has none, or its record is damaged.

        Raises:
            DataLoss: It cannot be found any more.
        """
        folder = Folder.current(self.store, f"runs/{kind.value}/{run_id}")
        return self._owner(folder.key("").rstrip("/")) if folder else None

    def _owner(self, folder: str) -> str | None:
        """The owner of the run with this folder, `runs/<kind>/<run id>/<folder>`."""
        found = self.store.owners.get(folder)
        if found is None:
            _, kind, run_id, _ = folder.split("/")
            record = self._intact(RunKind(kind), run_id) if kind in _KINDS else None
            if record:
                self.store.owners.note(folder, found := record.info.owner)
        return found

    def _read(self, kind: RunKind, run_id: str) -> Record | None:
        run = Run(self.store, kind.value, run_id, 0)
        value = run.value(SUMMARY)
        with run.intact(SUMMARY):
            return from_json(Record, value) if value else None

    def _intact(self, kind: RunKind, run_id: str) -> Record | None:
        """The record of a run for a list: None, and a line in the log, if it is damaged."""
        try:
            return self._read(kind, run_id)
        except DataLoss as error:
            self.store.report(error)
        except NotFound:  # it was just deleted
            pass
        return None

    def is_alive(self, record: Record) -> bool:
        """Whether a process executes the run, or lets it wait in its queue."""
        held = not (record.info.state.has_ended or record.released)
        return held and time.time() - record.renewed <= self.lease_seconds

    def shown(self, record: Record) -> RunInfo:
        """The run as callers see it: with its size, and without the claim that a lost process still works on it."""
        info = record.info
        if not info.state.has_ended and not self.is_alive(record):
            info = replace(info, state=RunState.QUEUED if info.detached else RunState.STOPPED)
        entries = self.store.list(f"runs/{info.kind.value}/{info.run_id}")
        return replace(info, bytes=sum(entry.size for entry in entries))

    def abandoned(self, kind: RunKind) -> Iterator[str]:
        """The ids of the detached runs that nobody executes."""
        for entry in self.store.list(f"detached/{kind.value}"):
            run_id = entry.key.rpartition("/")[2]
            try:
                record = self._read(kind, run_id)
            except DataLoss as error:
                self.store.report(error)
                continue
            if record is None or record.info.state.has_ended:
                # The process that should have deleted it was lost. A newer key may be that of a run which just begins:
                # its record is written after the key.
                if datetime.now(UTC) - entry.modified > timedelta(seconds=self.lease_seconds):
                    self.store.delete(entry.key)
            elif not self.is_alive(record):
                yield run_id

    def delete(self, record: Record) -> None:
        """Deletes a run, everything that belongs to it included. No process may execute it."""
        info = record.info
        self.store.delete(_detached_key(info))
        Run(self.store, info.kind.value, info.run_id, 0).delete()
        self.store.delete(_index_key(info))

    def repair(self, kind: RunKind) -> None:
        """Makes the index agree with the runs in the store, after processes were lost between two writes."""
        indexed = {key.partition("-")[2]: key for key in self._keys(kind)}
        runs = {entry.key.split("/")[2] for entry in self.store.list(f"runs/{kind.value}")}
        for run_id in indexed.keys() - runs:
            self.store.delete(f"index/{kind.value}/{indexed[run_id]}")
        for run_id in runs - indexed.keys():
            if record := self._intact(kind, run_id):
                self.store.put(_index_key(record.info), b"")

    def page(self, wanted: RunFilter) -> RunPage:
        """A page of the runs, newest first.

        Raises:
            InvalidInput: The token is none of this service's, or belongs to other filters.
        """
        size = min(wanted.page_size or PAGE_SIZE, LARGEST_PAGE)
        kinds = tuple(RunKind) if wanted.kind is None else (wanted.kind,)
        keys = _after(wanted, heapq.merge(*(self._keys_of(kind) for kind in kinds)))
        found = list(islice(self._matching(wanted, keys, size), size + 1))
        runs = tuple(info for _, info in found[:size])
        return RunPage(runs, _token(wanted, found[size - 1][0]) if len(found) > size else "")

    def _matching(
        self, wanted: RunFilter, keys: Iterator[tuple[str, str]], size: int
    ) -> Iterator[tuple[tuple[str, str], RunInfo]]:
        """The runs that the filters let through, with their keys. Reads many at once: a read waits for the store."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="runs") as pool:
            unknown = (key for key in keys if self._may_match(key, wanted))
            while batch := list(islice(unknown, size + 1)):
                for key, info in zip(batch, pool.map(self._info_of, batch), strict=True):
                    if info is not None and _matches(info, wanted):
                        yield key, info

    def _may_match(self, key: tuple[str, str], wanted: RunFilter) -> bool:
        """Whether a run has to be read: false where its owner is known, and not the one that is wanted."""
        owner = self.store.owners.get(f"index/{key[1]}/{key[0]}")
        return owner is None or _is_of(owner, wanted)

    def _info_of(self, key: tuple[str, str]) -> RunInfo | None:
        record = self._intact(RunKind(key[1]), key[0].partition("-")[2])
        if record is None:
            return None
        self.store.owners.note(f"index/{key[1]}/{key[0]}", record.info.owner)
        return self.shown(record)

    def _keys_of(self, kind: RunKind) -> list[tuple[str, str]]:
        return [(key, kind.value) for key in self._keys(kind)]

    def _keys(self, kind: RunKind) -> list[str]:
        return [entry.key.rpartition("/")[2] for entry in self.store.list(f"index/{kind.value}")]


def _index_key(info: RunInfo) -> str:
    return f"index/{info.kind.value}/{_LATEST - int(info.created * 1000):013d}-{info.run_id}"


def _detached_key(info: RunInfo) -> str:
    return f"detached/{info.kind.value}/{info.run_id}"


def _matches(info: RunInfo, wanted: RunFilter) -> bool:
    return _is_of(info.owner, wanted) and wanted.state in (None, info.state)


def _is_of(owner: str, wanted: RunFilter) -> bool:
    """Whether the caller sees the runs of an owner, and wants them."""
    return may_see(owner) and wanted.owner in ("", owner)


def _filters(wanted: RunFilter) -> list[str]:
    return [wanted.kind.value if wanted.kind else "", wanted.state.value if wanted.state else "", wanted.owner]


def _token(wanted: RunFilter, last: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([*_filters(wanted), *last]).encode()).decode()


def _after(wanted: RunFilter, keys: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The keys that follow the page before."""
    if not wanted.page_token:
        return keys
    try:
        *filters, key, kind = json.loads(base64.urlsafe_b64decode(wanted.page_token))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidInput("not a token of an earlier page", field="page_token") from None
    if filters != _filters(wanted):
        raise InvalidInput("the token belongs to other filters: begin with the first page", field="page_token")
    return (each for each in keys if each > (key, kind))
