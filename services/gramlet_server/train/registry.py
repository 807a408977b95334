"""Heads in the store, by name and version.

    heads/<name>/<version>.json            the head's description; a head exists if and only if this does
    heads/<name>/<content>.safetensors     its tensors, written before the description, under their own hash

A version is claimed by creating its description where none is, so that two runs under one name get two versions, and
nobody ever sees a head whose tensors are not there. A deleted version leaves an empty description behind: its number is
not used again.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

from gramlet.errors import AlreadyExists, InvalidInput, NotFound
from gramlet.json_codec import from_json, to_json
from gramlet.train.types import Head, HeadRef
from gramlet.types import check_name
from safetensors.torch import load, save
from torch import Tensor

from gramlet_server.runs.store import Store

_DESCRIPTION = re.compile(r"heads/([^/]+)/(\d+)\.json")
_LATE, _HEAD = "delta.", "head."

State = dict[str, Tensor]


class Registry:
    """The heads of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, head: Head, head_state: State, late_delta: State) -> Head:
        """Stores a head as the next version of its name.

        Args:
            head: Its description; `version` and `bytes` are filled in here.
            head_state: The head's tensors.
            late_delta: Tensors of the unfrozen stages, less the network's own; empty if none are.
        """
        tensors = {_HEAD + name: value.contiguous() for name, value in head_state.items()}
        tensors |= {_LATE + name: value.contiguous() for name, value in late_delta.items()}
        data = save(tensors, {"gramlet": to_json(replace(head, version=0)).decode()})
        content = hashlib.sha256(data).hexdigest()
        self._store.put(_tensors_key(head.name, content), data)
        while True:
            version = max(self._versions(head.name), default=0) + 1
            added = replace(head, version=version, bytes=len(data))
            try:
                self._store.create(_key(head.name, version), _describe(added, content))
            except AlreadyExists:
                continue  # another run was faster: the next number, then
            return added

    def get(self, ref: HeadRef) -> Head:
        """A head's description; version 0 is the newest complete one.

        Raises:
            InvalidInput: No name for a head.
            NotFound: There is no such head.
        """
        return self.find(ref)[0]

    def find(self, ref: HeadRef) -> tuple[Head, str]:
        """A head's description, and the hash that its tensors are stored under.

        Raises:
            InvalidInput: No name for a head.
            NotFound: There is no such head.
        """
        check_name(ref.name, "head.name")
        found = self._read(ref.name, ref.version) if ref.version else self._newest(ref.name)
        if found is None:
            raise NotFound(f"there is no head {ref}", field="head")
        return found

    def tensors(self, name: str, content: str) -> tuple[State, State]:
        """The head's tensors, and the differences of its unfrozen stages to the network's weights."""
        tensors = load(self.file(name, content))
        return _below(tensors, _HEAD), _below(tensors, _LATE)

    def file(self, name: str, content: str) -> bytes:
        """The head's safetensors file, with its description in the metadata."""
        return self._store.get(_tensors_key(name, content))

    def heads(self, name: str = "") -> list[Head]:
        """All heads, or all of one name, by name and version.

        Raises:
            InvalidInput: No name for a head.
        """
        if name:
            check_name(name, "name")
        places = [_DESCRIPTION.fullmatch(entry.key) for entry in self._store.list(f"heads/{name}" if name else "heads")]
        found = (self._read(place[1], int(place[2])) for place in places if place)
        return sorted((item[0] for item in found if item), key=lambda head: (head.name, head.version))

    def of_run(self, name: str, run_id: str) -> Head | None:
        """The complete head that a run has stored, if it has."""
        return next((head for head in self.heads(name) if head.run_id == run_id and head.complete), None)

    def delete(self, ref: HeadRef) -> None:
        """Removes a version. Its number is not used again.

        Raises:
            InvalidInput: No version given.
            NotFound: There is no such head.
        """
        if not ref.version:
            raise InvalidInput("say which version to delete", field="head.version")
        head, content = self.find(ref)
        self._store.put(_key(head.name, head.version), b"")
        if not any(self.find(HeadRef(h.name, h.version))[1] == content for h in self.heads(head.name)):
            self._store.delete(_tensors_key(head.name, content))

    def _newest(self, name: str) -> tuple[Head, str] | None:
        for version in sorted(self._versions(name), reverse=True):
            found = self._read(name, version)
            if found and found[0].complete:
                return found
        return None

    def _versions(self, name: str) -> list[int]:
        """Numbers that are taken, those of deleted versions included."""
        places = (_DESCRIPTION.fullmatch(entry.key) for entry in self._store.list(f"heads/{name}"))
        return [int(place[2]) for place in places if place]

    def _read(self, name: str, version: int) -> tuple[Head, str] | None:
        try:
            data = self._store.get(_key(name, version))
        except NotFound:
            return None
        return (from_json(Head, data), json.loads(data)["content"]) if data else None


def _describe(head: Head, content: str) -> bytes:
    return json.dumps({**json.loads(to_json(head)), "content": content}).encode()


def _key(name: str, version: int) -> str:
    return f"heads/{name}/{version:08d}.json"


def _tensors_key(name: str, content: str) -> str:
    return f"heads/{name}/{content}.safetensors"


def _below(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
