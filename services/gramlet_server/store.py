"""Where state that outlives a process is kept: a local directory, or S3.

`Store` is a flat map from keys to bytes with atomic writes. `Run` is one piece of long work in it, with a fence, so
that two processes never write one run: whoever created its highest epoch owns it, and everybody writes below their own
epoch. A process that lost its run therefore cannot overwrite anything; it learns of it at its next write.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from gramlet.errors import Aborted, AlreadyExists, GramletError, InvalidInput, NotFound, Unavailable
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store

_log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Entry:
    """A key of the store, with its size in bytes and when it was written."""

    key: str
    size: int
    modified: datetime


class Store:
    """A flat map from keys (`heads/bees/1.safetensors`) to bytes. A reader sees a whole value or none."""

    def __init__(self, backend: ObjectStore, address: str) -> None:
        self._backend = backend
        self.address = address

    @classmethod
    def open(cls, address: str) -> Store:
        """Opens a directory (made if need be) or `s3://bucket/prefix`.

        S3 takes its endpoint and credentials from the usual variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...

        Raises:
            InvalidInput: Not an address of either kind, or a directory that cannot be made.
        """
        if address.startswith("s3://"):
            bucket, _, prefix = address.removeprefix("s3://").partition("/")
            if not bucket:
                raise InvalidInput(f"{address} names no bucket; write s3://bucket/prefix", field="store")
            # A plain http endpoint has to be allowed by name; it is somebody's own machine, not S3 itself.
            return cls(S3Store(bucket, prefix=prefix or None, client_options={"allow_http": True}), address)
        if "://" in address:
            raise InvalidInput(f"{address} is neither a directory nor s3://bucket/prefix", field="store")
        try:
            return cls(LocalStore(Path(address), mkdir=True), address)
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise InvalidInput(f"{address} cannot be made or opened: {error}", field="store") from None

    def put(self, key: str, data: bytes) -> None:
        """Writes a value, whole or not at all."""
        with self._errors(key):
            obstore.put(self._backend, key, data)

    def create(self, key: str, data: bytes) -> None:
        """Writes a value under a key that must be free. Of several at once, exactly one succeeds.

        Raises:
            AlreadyExists: The key is taken.
        """
        with self._errors(key):
            obstore.put(self._backend, key, data, mode="create")

    def get(self, key: str) -> bytes:
        """The value of a key.

        Raises:
            NotFound: There is none.
        """
        with self._errors(key):
            return bytes(obstore.get(self._backend, key).bytes())

    def list(self, prefix: str) -> list[Entry]:
        """The keys below a prefix (whole path components), in order."""
        with self._errors(prefix):
            found = [meta for chunk in obstore.list(self._backend, prefix) for meta in chunk]
        return sorted((Entry(m["path"], m["size"], m["last_modified"]) for m in found), key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        """Removes a key; no error if it is not there."""
        with self._errors(key), suppress(exceptions.NotFoundError, FileNotFoundError):
            obstore.delete(self._backend, key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise NotFound(f"the store has no {key}") from None
        except exceptions.AlreadyExistsError:
            raise AlreadyExists(f"the store already has {key}") from None
        except (exceptions.BaseError, OSError) as error:
            raise Unavailable(f"the store {self.address} failed at {key}: {error}") from error


class Run:
    """One piece of long work in the store, owned by whoever created its highest epoch.

    Keys: `runs/<kind>/<run id>/<epoch>/owner` and, beside it, the values of that epoch; and
    `runs/<kind>/<run id>/<log>/<number>`, of no epoch, which anybody may add to.
    """

    def __init__(self, store: Store, kind: str, run_id: str, epoch: int) -> None:
        self._store = store
        self.run_id = run_id
        self.epoch = epoch
        self._prefix = f"runs/{kind}/{run_id}"

    @classmethod
    def create(cls, store: Store, kind: str, run_id: str) -> Run:
        """Begins a run.

        Raises:
            InvalidInput: Not a name for a run.
            AlreadyExists: There is such a run.
        """
        run = cls(store, kind, _checked(run_id), 1)
        try:
            run._own()
        except AlreadyExists:
            raise AlreadyExists(f"run {run_id} exists: resume it, or choose another name", field="run_id") from None
        return run

    @classmethod
    def take_over(cls, store: Store, kind: str, run_id: str) -> Run:
        """Becomes the owner of a run. Whoever owned it before fails at its next write.

        Raises:
            NotFound: There is no such run.
            Aborted: Somebody else took it over at the same moment.
        """
        run = cls(store, kind, _checked(run_id), 0)
        newest = run._newest_epoch()
        if newest == 0:
            raise NotFound(f"the store {store.address} has no run {run_id}", field="resume_run_id")
        run.epoch = newest + 1
        try:
            run._own()
        except AlreadyExists:
            raise Aborted(f"run {run_id} was taken over by another process at the same moment") from None
        return run

    @classmethod
    def find(cls, store: Store, kind: str, run_id: str) -> Run:
        """A run that another process may own, to read it and to append to its logs.

        Raises:
            NotFound: There is no such run.
        """
        run = cls(store, kind, _checked(run_id), 0)
        if run._newest_epoch() == 0:
            raise NotFound(f"the store {store.address} has no run {run_id}", field="run_id")
        return run

    def append(self, log: str, number: int, data: bytes) -> None:
        """Writes a numbered entry of a log, which anybody may do, owner or not.

        Raises:
            AlreadyExists: The number is taken.
        """
        self._store.create(f"{self._prefix}/{log}/{number:08d}", data)

    def log(self, log: str, after: int = 0) -> list[bytes]:
        """The entries of a log after the first so many, in order."""
        return [self._store.get(entry.key) for entry in self._store.list(f"{self._prefix}/{log}")[after:]]

    def put(self, name: str, data: bytes) -> None:
        """Writes a value of the run, and drops the copies of earlier epochs.

        Raises:
            Aborted: Another process owns the run now.
        """
        if self._newest_epoch() != self.epoch:
            raise Aborted(f"run {self.run_id} was taken over by another process")
        self._store.put(self._key(self.epoch, name), data)
        for epoch in self._epochs_with(name):
            if epoch < self.epoch:
                self._store.delete(self._key(epoch, name))

    def get(self, name: str) -> bytes:
        """The newest value of that name.

        Raises:
            NotFound: No epoch has one.
        """
        epochs = self._epochs_with(name)
        if not epochs:
            raise NotFound(f"run {self.run_id} has no {name}")
        return self._store.get(self._key(max(epochs), name))

    def has(self, name: str) -> bool:
        """Whether any epoch has a value of that name."""
        return bool(self._epochs_with(name))

    def delete(self) -> None:
        """Removes the run with everything in it."""
        for entry in self._store.list(self._prefix):
            self._store.delete(entry.key)

    def _own(self) -> None:
        self._store.create(self._key(self.epoch, "owner"), datetime.now(UTC).isoformat().encode())

    def _newest_epoch(self) -> int:
        return max(self._epochs_with("owner"), default=0)

    def _epochs_with(self, name: str) -> list[int]:
        suffix = f"/{name}"
        keys = (entry.key for entry in self._store.list(self._prefix))
        return [int(key.removesuffix(suffix).rpartition("/")[2]) for key in keys if key.endswith(suffix)]

    def _key(self, epoch: int, name: str) -> str:
        return f"{self._prefix}/{epoch:08d}/{name}"


def sweep_runs(store: Store, kind: str, older_than: timedelta) -> int:
    """Removes runs that nobody has written to for a while; returns how many."""
    newest: dict[str, datetime] = {}
    for entry in store.list(f"runs/{kind}"):
        run_id = entry.key.split("/")[2]
        newest[run_id] = max(entry.modified, newest.get(run_id, entry.modified))
    stale = [run_id for run_id, modified in newest.items() if datetime.now(UTC) - modified > older_than]
    for run_id in stale:
        Run(store, kind, run_id, 0).delete()
    return len(stale)


def keep_sweeping(store: Store, kind: str, older_than: timedelta, every: timedelta = timedelta(hours=1)) -> None:
    """Sweeps now and again for as long as the process lives, in a thread of its own. Replicas may do so together."""

    def sweep() -> None:
        while True:
            try:
                if swept := sweep_runs(store, kind, older_than):
                    _log.info("%d %s run(s) older than %s removed from the store", swept, kind, older_than)
            except GramletError as error:
                _log.warning("old %s runs could not be removed, trying again later: %s", kind, error)
            time.sleep(every.total_seconds())

    threading.Thread(target=sweep, name=f"sweep-{kind}", daemon=True).start()


def _checked(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInput(f"{run_id!r} is not 1 to 64 letters, digits, '-' or '_'", field="run_id")
    return run_id
