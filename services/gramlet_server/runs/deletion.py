"""Deletes runs: one that is no longer wanted, and old ones.

1. An empty key `owner` in the next epoch. From then on the run is gone, and nobody can take it over.
2. The key `current`, by the process that made step 1. Then the id is free, and nobody comes to the folder any more.
3. Everything in the folder. If the process is stopped before the end, any process does this.

If the process is stopped between 1 and 2, its delete of `current` could arrive late and hit a new run of the same id.
So others leave `current` alone for an hour. Then the next sweep begins again with step 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from gramlet_server.runs.layout import Folder
from gramlet_server.runs.store import Entry, Store


def delete_run(store: Store, kind: str, run_id: str) -> None:
    """Deletes a run with all of its values and logs, and what an interrupted deletion has left of an earlier one."""
    place = f"runs/{kind}/{run_id}"
    while folder := Folder.current(store, place):
        listing = folder.list()
        if listing.is_deleted:
            _erase(store, folder)  # another process deletes it, or has begun to
            break
        if folder.bury(listing.epoch + 1):
            finish(store, folder)
            break
    erase_left(store, place, store.list(place))


def finish(store: Store, folder: Folder) -> None:
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


def erase_left(store: Store, place: str, entries: Sequence[Entry]) -> Folder | None:
    """Deletes those of the keys that are in folders of deleted runs. Returns the folder of the run that is not."""
    folder = Folder.current(store, place)
    for entry in entries:
        if entry.key != f"{place}/current" and not (folder and entry.key.startswith(folder.key(""))):
            store.delete(entry.key)
    return folder
