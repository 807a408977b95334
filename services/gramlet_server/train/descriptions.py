"""The descriptions of heads in the store. They need no torch, so that every service knows whose heads there are.

heads/<name>/<version>.json            the head's description; a head exists if and only if this key does
heads/<name>/<content>.safetensors     its weights, under the hash of the file, written before the description
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gramlet.errors import DataLoss, NotFound
from gramlet.json_codec import from_json
from gramlet.train.types import Head

from gramlet_server.runs.store import Store, intact

DESCRIPTION = re.compile(r"heads/([^/]+)/(\d{8})\.json")


@dataclass(frozen=True)
class StoredHead:
    """`content`: the hash of the head's file; `owner`: the name of the caller who trained it."""

    head: Head
    content: str
    owner: str = ""


def description_key(name: str, version: int) -> str:
    """The key of a description."""
    return f"heads/{name}/{version:08d}.json"


def weights_key(name: str, content: str) -> str:
    """The key of a head's file."""
    return f"heads/{name}/{content}.safetensors"


def get_description(store: Store, name: str, version: int) -> StoredHead | None:
    """A description; None if there is none, or the version was deleted.

    Raises:
        DataLoss: It is damaged.
    """
    key = description_key(name, version)
    try:
        data = store.get(key)
    except NotFound:
        return None
    with intact(key):
        return from_json(StoredHead, data) if data else None


class HeadSizes:
    """The owner and the bytes of every head in a store.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, StoredHead | None] = {}

    def __call__(self) -> Iterator[tuple[str, int]]:
        """A file that two versions share counts for each."""
        sizes = {entry.key: entry.size for entry in self._store.list("heads")}
        keys = {key: match for key in sizes if (match := DESCRIPTION.fullmatch(key)) and sizes[key]}
        # A description never changes, except that it is emptied when its version is deleted.
        self._known = {
            key: self._known.get(key) or self._intact(match[1], int(match[2])) for key, match in keys.items()
        }
        for key, stored in self._known.items():
            if stored is not None:
                name = keys[key][1]
                yield stored.owner, sizes[key] + sizes.get(weights_key(name, stored.content), 0)

    def _intact(self, name: str, version: int) -> StoredHead | None:
        try:
            return get_description(self._store, name, version)
        except DataLoss as error:
            self._store.report(error)
            return None
