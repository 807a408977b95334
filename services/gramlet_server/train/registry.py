"""Heads in the store, by name and version. See descriptions.py for their keys.

A run gets its version by creating a description under a number that is free. So two runs under one name get two
versions, and no reader finds a head without weights. Deleting a version leaves an empty description, so its number is
not used again.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from gramlet.errors import AlreadyExists, DataLoss, InvalidInput, NotFound
from gramlet.json_codec import to_json
from gramlet.train.types import Head, HeadRef
from gramlet.types import check_name

from gramlet_server.process.identity import caller, may_see
from gramlet_server.runs.store import Store, intact
from gramlet_server.train.classifier import HeadWeights
from gramlet_server.train.descriptions import DESCRIPTION, StoredHead, description_key, get_description, weights_key


class Registry:
    """The heads of a store that the caller may see."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, head: Head, weights: HeadWeights) -> Head:
        """Stores a head as the next version of its name; returns it with its `version` and `bytes`.

        Args:
            head: Its description; `version` and `bytes` are ignored.
            weights: Its weights, and those of the stages that were trained with it.
        """
        data = weights.to_bytes(to_json(replace(head, version=0)).decode())
        content = hashlib.sha256(data).hexdigest()
        self._store.put(weights_key(head.name, content), data)
        while True:
            version = max(self._versions(head.name), default=0) + 1
            added = replace(head, version=version, bytes=len(data))
            try:
                stored = StoredHead(added, content, caller.get().name)
                self._store.create(description_key(head.name, version), to_json(stored))
            except AlreadyExists:
                continue  # another run took this number first
            return added

    def get(self, ref: HeadRef) -> Head:
        """A head's description; version 0 is the newest complete one.

        Raises:
            InvalidInput: Not a valid name.
            NotFound: The store has no such head.
            DataLoss: Its description is damaged.
        """
        return self.find(ref)[0]

    def find(self, ref: HeadRef) -> tuple[Head, str]:
        """A head's description, and the hash that its tensors are stored under.

        Raises:
            InvalidInput: Not a valid name.
            NotFound: The store has no such head.
        """
        check_name(ref.name, "head.name")
        found = self._read(ref.name, ref.version) if ref.version else self._newest(ref.name)
        if found is None:
            raise NotFound(f"there is no head {ref}", field="head")
        return found

    def weights(self, name: str, content: str) -> HeadWeights:
        """The weights of a head: its name, and the hash from `find`."""
        with intact(f"the weights of head {name}"):
            return HeadWeights.from_bytes(self.file(name, content))[1]

    def file(self, name: str, content: str) -> bytes:
        """The head's safetensors file, with its description in the metadata."""
        return self._store.get(weights_key(name, content))

    def heads(self, name: str = "") -> list[Head]:
        """All heads, or all of one name, by name and version. Damaged ones are left out.

        Raises:
            InvalidInput: Not a valid name.
        """
        if name:
            check_name(name, "name")
        entries = self._store.list(f"heads/{name}" if name else "heads")
        keys = [match for entry in entries if (match := DESCRIPTION.fullmatch(entry.key))]
        found = []
        for key in keys:
            owner = self._store.owners.get(key[0])
            try:
                if owner is None or may_see(owner):
                    found.append(self._read(key[1], int(key[2])))
            except DataLoss as error:
                self._store.report(error)
        return sorted((item[0] for item in found if item), key=lambda head: (head.name, head.version))

    def of_run(self, name: str, run_id: str) -> Head | None:
        """The complete head that a run has stored, or None."""
        return next((head for head in self.heads(name) if head.run_id == run_id and head.complete), None)

    def delete(self, ref: HeadRef) -> None:
        """Removes a version. Its number is not used again.

        Raises:
            InvalidInput: No version given.
            NotFound: The store has no such head.
        """
        if not ref.version:
            raise InvalidInput("say which version to delete", field="head.version")
        head, content = self.find(ref)
        self._store.put(description_key(head.name, head.version), b"")
        try:
            others = [get_description(self._store, head.name, version) for version in self._versions(head.name)]
        except DataLoss as error:  # it may be the damaged one's file as well
            self._store.report(error)
            return
        if not any(other and other.content == content for other in others):
            self._store.delete(weights_key(head.name, content))

    def _newest(self, name: str) -> tuple[Head, str] | None:
        for version in sorted(self._versions(name), reverse=True):
            found = self._read(name, version)
            if found and found[0].complete:
                return found
        return None

    def _versions(self, name: str) -> list[int]:
        """The version numbers in use, and those of deleted versions."""
        keys = (DESCRIPTION.fullmatch(entry.key) for entry in self._store.list(f"heads/{name}"))
        return [int(key[2]) for key in keys if key]

    def _read(self, name: str, version: int) -> tuple[Head, str] | None:
        stored = get_description(self._store, name, version)
        if stored:
            self._store.owners.note(description_key(name, version), stored.owner)
        return (stored.head, stored.content) if stored and may_see(stored.owner) else None
