"""The fixes of the fence, each undone by replacing a piece of the product's code.

python -m tests.runs.mutations NAME SEED      prints the schedule of a seed with that fix undone
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from gramlet.errors import Aborted, NotFound
from gramlet_server.runs import retention
from gramlet_server.runs import run as run_module
from gramlet_server.runs.layout import Folder, Listing, Version
from gramlet_server.runs.run import Run

from tests.runs.simulation import main

Mutation = Callable[[], AbstractContextManager[Any]]

_own, _list = Folder.own, Folder.list


def a_write_is_checked_before_it_and_not_after_it() -> AbstractContextManager[Any]:
    """0.1 did this: the next owner lists between the check and the write, and then finds neither old nor new."""

    def put(self: Run, name: str, data: bytes) -> None:
        folder = self._opened("run_id")
        if folder.list().epoch != self.epoch:
            raise Aborted("another process owns the run")
        version = Version(self.epoch, next(self._numbers), name)
        self._store.put(folder.key(version.path), data)
        _delete_all_before(self, version, folder.list(), folder)

    return mock.patch.object(Run, "put", put)


def earlier_versions_are_deleted_before_the_check() -> AbstractContextManager[Any]:
    """0.1 did this: the version that the next owner starts with is deleted."""

    def put(self: Run, name: str, data: bytes) -> None:
        folder = self._opened("run_id")
        version = Version(self.epoch, next(self._numbers), name)
        self._store.put(folder.key(version.path), data)
        listing = folder.list()
        _delete_all_before(self, version, listing, folder)
        if listing.epoch != self.epoch:
            raise Aborted("another process owns the run")

    return mock.patch.object(Run, "put", put)


def a_value_that_is_gone_was_never_there() -> AbstractContextManager[Any]:
    """0.1 did this: a key that is deleted between the list and the read is taken for "nothing there yet"."""

    def read(self: Run, take: Callable[..., Any]) -> Any:
        folder = self._open()
        try:
            listing = folder.list() if folder else Listing()
            return take(listing, self._base(folder, listing.epoch)) if folder and listing.is_alive else None
        except (NotFound, run_module._Moved):
            return None

    return mock.patch.object(Run, "_read", read)


def the_newest_version_of_any_epoch_counts() -> AbstractContextManager[Any]:
    """A write that arrives after a take-over is read."""

    def chosen(name: str, listing: Listing, base: Any) -> Version | None:
        version = max(listing.versions.get(name, ()), default=None)
        if version and version.number == 0:
            raise run_module._Moved
        return version

    return mock.patch.object(run_module, "_chosen", chosen)


def versions_have_no_numbers() -> AbstractContextManager[Any]:
    """Each write replaces the one before, so one that arrives late replaces a newer one."""
    begin = Run.__init__

    def unnumbered(self: Run, *arguments: Any) -> None:
        begin(self, *arguments)
        self._numbers = itertools.repeat(1)  # type: ignore[assignment]

    return mock.patch.object(Run, "__init__", unnumbered)


def a_base_is_listed_before_the_epoch_is_owned() -> AbstractContextManager[Any]:
    """A write that succeeds between the list and the take-over is lost."""

    def own(self: Folder, epoch: int) -> bool:
        self.seen = self.list()  # type: ignore[attr-defined]
        return _own(self, epoch)

    def make_base(self: Run, folder: Folder, epoch: int) -> bytes:
        before = self._base(folder, epoch - 1)
        listing = getattr(folder, "seen", None) or folder.list()
        written = {name: listing.newest(name, epoch - 1) for name in listing.versions}
        return json.dumps({**before, **{name: version.path for name, version in written.items() if version}}).encode()

    return _patched((Folder, "own", own), (Run, "_make_base", make_base))


def readers_do_not_fix_a_base() -> AbstractContextManager[Any]:
    """When an owner has crashed before it fixed its base, readers see what its predecessor still writes."""

    def base(self: Run, folder: Folder, epoch: int) -> Any:
        if epoch in self._bases:
            return self._bases[epoch]
        key = folder.key(f"{epoch:08d}/base")
        try:
            return json.loads(self._store.get(key))
        except NotFound:
            data = self._make_base(folder, epoch)
        if epoch == self.epoch:
            self._store.create(key, data)
            self._bases[epoch] = json.loads(data)
        return json.loads(data)

    return mock.patch.object(Run, "_base", base)


def a_reader_does_not_look_for_a_next_owner() -> AbstractContextManager[Any]:
    """It reads what the next owner has not listed, and later readers do not get it."""
    return mock.patch.object(Folder, "is_owned", return_value=False)


def one_list_shows_that_a_value_is_absent() -> AbstractContextManager[Any]:
    """The list may miss a version that was deleted, and the version of the next owner that replaced it."""

    def look_up(self: Run, name: str, fetch: Callable[[str], Any]) -> Any:
        folder = self._open()

        def read(listing: Listing, base: Any) -> Any:
            version = run_module._chosen(name, listing, base)
            return fetch(folder.key(version.path)) if folder and version and version.size else None

        return self._read(read)

    return mock.patch.object(Run, "_look_up", look_up)


def a_log_has_gaps() -> AbstractContextManager[Any]:
    """The list may show an entry, and not the one before it."""

    def log(self: Run, name: str, after: int = 0) -> list[bytes]:
        folder = self._open()
        return [self._store.get(entry.key) for entry in self._store.list(folder.key(name))[after:]] if folder else []

    return mock.patch.object(Run, "log", log)


def a_sweep_deletes_without_owning() -> AbstractContextManager[Any]:
    """0.1 did this: a run that is taken over between the list and the deletion keeps an owner, and loses its order."""

    def sweep(store: Any, place: str, entries: Any, times: Any) -> bool:
        if times.is_old(entries):
            for entry in entries:
                store.delete(entry.key)
        return times.is_old(entries)

    return mock.patch.object(retention, "_sweep", sweep)


def a_run_is_deleted_without_owning() -> AbstractContextManager[Any]:
    """A process that takes the run over, or creates it again, loses its keys."""

    def delete(store: Any, kind: str, run_id: str) -> None:
        for entry in store.list(f"runs/{kind}/{run_id}"):
            store.delete(entry.key)

    return mock.patch.object(run_module, "delete_run", delete)


def every_run_of_an_id_has_the_same_folder() -> AbstractContextManager[Any]:
    """A late write of a deleted run is read in the next run of that id."""
    begin = Folder.__init__

    def same(self: Folder, store: Any, place: str, name: str) -> None:
        begin(self, store, place, "same")

    return mock.patch.object(Folder, "__init__", same)


def two_processes_finish_a_deletion() -> AbstractContextManager[Any]:
    """The late delete of one of them hits a new run of the same id."""

    def bury(self: Folder, epoch: int) -> bool:
        listing = _list(self)
        return listing.is_deleted or self._create(epoch, b"")

    return mock.patch.object(Folder, "bury", bury)


def _delete_all_before(run: Run, version: Version, listing: Listing, folder: Folder) -> None:
    for earlier in listing.versions.get(version.name, ()):
        if earlier < version:
            run._store.delete(folder.key(earlier.path))


@contextmanager
def _patched(*replaced: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


# With a seed that shows it.
MUTATIONS: dict[Mutation, int] = dict.fromkeys(
    (
        a_write_is_checked_before_it_and_not_after_it,
        earlier_versions_are_deleted_before_the_check,
        a_value_that_is_gone_was_never_there,
        the_newest_version_of_any_epoch_counts,
        versions_have_no_numbers,
        a_base_is_listed_before_the_epoch_is_owned,
        readers_do_not_fix_a_base,
        a_reader_does_not_look_for_a_next_owner,
        one_list_shows_that_a_value_is_absent,
        a_log_has_gaps,
        a_sweep_deletes_without_owning,
        a_run_is_deleted_without_owning,
        every_run_of_an_id_has_the_same_folder,
        two_processes_finish_a_deletion,
    ),
    0,
)

if __name__ == "__main__":
    with next(undone for undone in MUTATIONS if undone.__name__ == sys.argv[1])():
        sys.exit(main(sys.argv[2:]))
