"""A run in the store, with a fence: the process that created its highest epoch owns it.

    runs/<kind>/<run id>/current                              the name of the folder
    runs/<kind>/<run id>/<folder>/<epoch>/owner               who owns the epoch; empty: the run is being deleted
    runs/<kind>/<run id>/<folder>/<epoch>/base                which versions of earlier epochs count
    runs/<kind>/<run id>/<folder>/<epoch>/<name>.<number>     a version of a value
    runs/<kind>/<run id>/<folder>/<log>/<number>              an entry of a log

The store creates a key only if it is free, and shows a key to everybody as soon as it is written. Nothing else is
certain. A process may stop at any point, and a write that it began may arrive much later. A list is no snapshot: it
shows every key that was there from its begin to its end, and some of those that came or went meanwhile.

- *Create*: create `current`, then `owner` in epoch 1.
- *Take over*: find the highest epoch, create `owner` in the next one, then fix the base of that epoch.
- *Fix the base of epoch N*: fix the base of epoch N - 1; list; create `base` with the newest version of each name: that
  of epoch N - 1, or else that in the base of N - 1. The list begins after `owner` of N was created. Any process may fix
  a base; the first one decides, and it never changes.
- *Write*: write a version under a new number, then list. If there is a higher epoch, the write has failed (Aborted).
  Otherwise delete the earlier versions, oldest first. Before the first of them is deleted, write number 0, which stays.
- *Read*: list; take the newest version of the highest epoch N, or else that in the base of N. Begin again if it is gone
  or if there is an epoch N + 1 by now. A value was never written if two lists say so that show the same highest epoch.
- *Delete*: see deletion.py.

Why it holds:

- A write that has succeeded was there before the next epoch: the list after it does not show that epoch. So the list
  from which the next base is made shows it, or a later version. A version is deleted only after a later one has
  succeeded. So no write that has succeeded is lost, and progress never goes back.
- What an owner writes after the next base was fixed is in no base, so nobody reads it.
- A reader has seen that there is no epoch N + 1 after it has seen version V of epoch N. So the next base has V or a
  later version, and no later reader gets an earlier one.
- A process that deletes and one that takes over create the same key, so one of them wins. A run that is created again
  under the same id has another folder, which no late write of the deleted run reaches.

tests/runs/simulation.py runs this code through schedules of crashes and late writes; docs/fence.qnt is a model of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeVar

from gramlet.errors import Aborted, AlreadyExists, DataLoss, GramletError, NotFound, Unavailable
from gramlet.types import check_name, new_name

from gramlet_server.runs.deletion import delete_run
from gramlet_server.runs.layout import Folder, Listing, Version
from gramlet_server.runs.store import Store, intact

_TRIES = 100
"""How often a reader begins again because the run has changed meanwhile."""
_TRIES_UNCHANGED = 20
"""The same while every list of the run shows the same keys: then something is missing for good."""
_CALLED = {"stylize": "stylization", "train": "training", "embed": "map"}

Base = Mapping[str, str]
"""The paths of the versions that the owner of an epoch starts with, by name."""

T = TypeVar("T")


class _Moved(Exception):
    """A list shows that the run changed while it was made."""


class Run:
    """A run in the store. Safe to use from several threads.

    Attributes:
        run_id: Its id.
        epoch: The epoch that this process owns, or owned; 0 if it only reads.
        written: The names of the values that were written by this object.
    """

    def __init__(self, store: Store, kind: str, run_id: str, epoch: int = 0) -> None:
        self._store = store
        self.run_id = run_id
        self.epoch = epoch
        self.written: set[str] = set()
        self._kind = kind
        self._place = f"runs/{kind}/{run_id}"
        self._folder: Folder | None = None
        self._bases: dict[int, Base] = {1: {}}  # bases never change
        self._numbers = itertools.count(1)

    @classmethod
    def create(cls, store: Store, kind: str, run_id: str = "") -> Run:
        """Begins a run. Without an id it gets a random one.

        Raises:
            InvalidInput: The id is not 1 to 64 letters, digits, '-' or '_'.
            AlreadyExists: There is a run of that id, or one that is being deleted.
        """
        run = cls(store, kind, check_name(run_id or new_name(), "run_id"), 1)
        run._folder = Folder.new(store, run._place)
        if run._folder and run._folder.own(1):
            # Another process may have made the folder and stopped, or may have just deleted the run.
            if run._folder.list().is_alive and run._folder.is_current:
                return run
            run._folder.disown(1)
        elif run._folder and run._folder.list().is_alive:
            raise AlreadyExists(f"run {run_id} exists: resume it, or choose another name", field="run_id")
        raise AlreadyExists(f"run {run_id} is being deleted: choose another name, or try again later", field="run_id")

    @classmethod
    @contextmanager
    def new(cls, store: Store, kind: str, run_id: str = "") -> Iterator[Run]:
        """The same, for what has to be stored with a run: if that fails, the run is deleted, and its id is free."""
        run = cls.create(store, kind, run_id)
        try:
            yield run
        except BaseException:
            with suppress(GramletError):
                run.delete()
            raise

    @classmethod
    def take_over(cls, store: Store, kind: str, run_id: str) -> Run:
        """Becomes the owner of a run. The owner before fails at its next write.

        Raises:
            InvalidInput: Not a valid id.
            NotFound: There is no such run.
            Aborted: Another process took it over at the same moment.
        """
        run = cls(store, kind, check_name(run_id, "run_id"))
        folder = run._opened("resume_run_id")
        listing = folder.list()
        if not listing.is_alive:
            raise run._missing("resume_run_id")
        run.epoch = listing.epoch + 1
        if not folder.own(run.epoch):
            raise Aborted(f"run {run_id} was taken over or deleted by another process at the same moment")
        try:
            run._base(folder, run.epoch)
        except NotFound:
            folder.disown(run.epoch)  # the run was deleted before
            raise run._missing("resume_run_id") from None
        return run

    @classmethod
    def find(cls, store: Store, kind: str, run_id: str, field: str = "run_id") -> Run:
        """A run to read and to append to, which another process may own.

        Args:
            store: The store.
            kind: Its kind.
            run_id: Its id.
            field: What the id is called in the request, for errors.

        Raises:
            InvalidInput: Not a valid id.
            NotFound: There is no such run.
        """
        run = cls(store, kind, check_name(run_id, field))
        if not run._opened(field).list().is_alive:
            raise run._missing(field)
        return run

    def append(self, log: str, number: int, data: bytes) -> None:
        """Writes a numbered entry of a log, from 1 on. Every process may, whether it owns the run or not.

        Raises:
            AlreadyExists: The number is taken.
            NotFound: There is no such run.
        """
        self._store.create(self._opened("run_id").key(f"{log}/{number:08d}"), data)

    def log(self, log: str, after: int = 0) -> list[bytes]:
        """The entries of a log in order, without the first `after` ones."""
        return [self._store.get(key) for key in self._log_keys(log, after)]

    def last(self, log: str) -> tuple[int, bytes]:
        """The number of the last entry of a log, and the entry; 0 and nothing if there is none."""
        keys = self._log_keys(log, 0)
        return len(keys), self._store.get(keys[-1]) if keys else b""

    def _log_keys(self, log: str, after: int) -> list[str]:
        if not (folder := self._open()):
            return []
        found = {entry.key for entry in self._store.list(folder.key(log))}
        keys = (folder.key(f"{log}/{number:08d}") for number in itertools.count(after + 1))
        # Up to the first gap: a list may show an entry, and not one before it that was written meanwhile.
        return list(itertools.takewhile(found.__contains__, keys))

    def put(self, name: str, data: bytes) -> None:
        """Writes a value. Once it returns, the value is durable, and earlier versions of it are deleted.

        Raises:
            Aborted: Another process owns the run now, or the run was deleted.
        """
        folder = self._opened("run_id")
        version = Version(self.epoch, next(self._numbers), name)
        self._store.put(folder.key(version.path), data)
        listing = folder.list()
        if not listing.is_alive or version not in listing.versions.get(name, ()):
            self._store.delete(folder.key(version.path))  # the process that deletes the run may not have seen it
            raise Aborted(f"run {self.run_id} was deleted")
        if listing.epoch != self.epoch:
            raise Aborted(f"run {self.run_id} was taken over by another process")
        self.written.add(name)
        _delete_before(version, listing, self._bases[self.epoch], self._store, folder)

    def drop(self, name: str) -> None:
        """Deletes a value, and frees its space.

        Raises:
            Aborted: Another process owns the run now, or the run was deleted.
        """
        self.put(name, b"")

    def get(self, name: str) -> bytes:
        """The newest value of that name.

        Raises:
            NotFound: No owner has written one, or it was dropped, or there is no such run.
        """
        data = self.value(name)
        if data is None:
            raise NotFound(f"run {self.run_id} has no {name}")
        return data

    def value(self, name: str) -> bytes | None:
        """The newest value of that name; None if no owner has written one, or it was dropped, or there is no run."""
        return self._look_up(name, lambda key: self._store.get(key))

    def intact(self, name: str) -> AbstractContextManager[None]:
        """Decodes the value of that name: errors inside become DataLoss."""
        return intact(f"{name} of run {self.run_id}")

    def has(self, name: str) -> bool:
        """Whether there is a value of that name."""
        return self._look_up(name, lambda _: True) is not None

    def names(self) -> set[str]:
        """The names of all values."""

        def read(listing: Listing, base: Base) -> set[str]:
            chosen = {name: _chosen(name, listing, base) for name in {*listing.versions, *base}}
            return {name for name, version in chosen.items() if version and version.size}

        return self._read(read) or set()

    def delete(self) -> None:
        """Deletes the run with all of its values and logs. From the first step on it is gone for everybody."""
        delete_run(self._store, self._kind, self.run_id)

    def _open(self) -> Folder | None:
        self._folder = self._folder or Folder.current(self._store, self._place)
        return self._folder

    def _opened(self, field: str) -> Folder:
        folder = self._open()
        if folder is None:
            raise self._missing(field)
        return folder

    def _missing(self, field: str) -> NotFound:
        return NotFound(f"there is no {_CALLED.get(self._kind, self._kind)} {self.run_id}", field=field)

    def _look_up(self, name: str, fetch: Callable[[str], T]) -> T | None:
        folder = self._open()
        if folder is None:
            return None
        key, absent_in = folder.key, 0

        def read(listing: Listing, base: Base) -> T | None:
            nonlocal absent_in
            version = _chosen(name, listing, base)
            if version is None and absent_in != listing.epoch:
                absent_in = listing.epoch
                raise _Moved  # the next owner may have just deleted it: look whether there is one
            return fetch(key(version.path)) if version and version.size else None

        return self._read(read)

    def _read(self, read: Callable[[Listing, Base], T]) -> T | None:
        """Reads until nothing has changed meanwhile. None if there is no such run.

        Raises:
            DataLoss: Something is missing, and nothing changes.
        """
        folder, before, unchanged = self._open(), Listing(), 0
        for _ in range(_TRIES):
            listing = folder.list() if folder else Listing()
            if folder is None or not listing.is_alive:
                return None
            with suppress(NotFound, _Moved):
                result = read(listing, self._base(folder, listing.epoch))
                if not folder.is_owned(listing.epoch + 1):
                    return result
            unchanged = unchanged + 1 if listing.entries == before.entries else 0
            if unchanged == _TRIES_UNCHANGED:
                raise DataLoss(f"values of run {self.run_id} are missing in the store")
            before = listing
        raise Unavailable(f"run {self.run_id} changes too fast to be read")

    def _base(self, folder: Folder, epoch: int) -> Base:
        """The base of an epoch whose owner was seen. It is made if it is missing.

        Raises:
            NotFound: The run was deleted.
        """
        if epoch not in self._bases:
            key = folder.key(f"{epoch:08d}/base")
            try:
                data = self._store.get(key)
            except NotFound:
                data = self._make_base(folder, epoch)
                try:
                    self._store.create(key, data)
                except AlreadyExists:
                    data = self._store.get(key)
            with intact(key):
                self._bases[epoch] = {str(name): str(path) for name, path in json.loads(data).items()}
        return self._bases[epoch]

    def _make_base(self, folder: Folder, epoch: int) -> bytes:
        before = self._base(folder, epoch - 1)
        listing = folder.list()
        if epoch - 1 not in listing.owners or listing.is_deleted:
            raise NotFound(f"run {self.run_id} was deleted")
        written = {name: listing.newest(name, epoch - 1) for name in listing.versions}
        return json.dumps({**before, **{name: version.path for name, version in written.items() if version}}).encode()


def is_deleted(run: Run) -> bool:
    """Whether the run that this object has written to is gone. A later run of its id is another one."""
    return not run._opened("run_id").list().is_alive


def _delete_before(version: Version, listing: Listing, base: Base, store: Store, folder: Folder) -> None:
    """Deletes the earlier versions of a value, the oldest first."""
    earlier = [each for each in listing.versions[version.name] if each < version]
    # A list may show neither a version that is deleted while it is made, nor the one after it. It shows this one.
    mark = Version(version.epoch, 0, version.name)
    is_marked = version.name in base or mark in earlier
    if not is_marked and any(each.epoch == version.epoch for each in earlier):
        store.put(folder.key(mark.path), b"")
    for each in earlier:
        if each != mark:
            store.delete(folder.key(each.path))


def _chosen(name: str, listing: Listing, base: Base) -> Version | None:
    """The version of a value that counts; None if there never was one.

    Raises:
        _Moved: It was replaced while the list was made.
    """
    version = listing.newest(name, listing.epoch)
    if version is None and name in base:
        version = listing.at(name, base[name])
        if version is None:
            raise _Moved
    if version and version.number == 0:
        raise _Moved
    return version
