"""Caches limited in bytes, least recently used first out: targets of objectives, and features of pictures."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from gramlet.errors import GramletError
from gramlet.feature.types import Extraction, Features
from gramlet.tensor.hashing import picture_hash
from gramlet.types import Array, Picture, Timing
from torch import Tensor

from gramlet_server.process.identity import caller
from gramlet_server.process.memory_budget import PROCESS, Budget
from gramlet_server.telemetry import Observer

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by key, limited in bytes. Threads may share it.

    Values in the process's memory take what its budget has free, and are dropped when requests need it.

    Args:
        name: For the metrics.
        limit_bytes: Of all values together.
        observer: Receives hits and misses.
        size: Bytes of a value.
        budget: Where the values are; None: not in the process's memory.
    """

    def __init__(
        self,
        name: str,
        limit_bytes: int,
        observer: Observer,
        size: Callable[[Value], int],
        budget: Budget | None = PROCESS,
    ) -> None:
        self._name = name
        self._limit = limit_bytes
        self._observer = observer
        self._size = size
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._room = None if budget is None else budget.reserve(0)
        if budget is not None:
            budget.on_shortage(self.clear)

    @property
    def bytes(self) -> int:
        """Size of all values in it."""
        return self._bytes

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
        self._observer.cache(self._name, hit=found is not None)
        return found

    def put(self, key: Hashable, value: Value) -> None:
        """Stores a value and drops the least recently used ones. A value that finds no room is not stored."""
        size = self._size(value)
        if size > self._limit:
            return
        with self._lock:
            self._drop(key)
            while self._bytes + size > self._limit:
                self._drop(next(iter(self._entries)))
            if self._room is not None and not self._room.try_to_resize(self._bytes + size):
                return
            self._entries[key] = value
            self._bytes += size

    def clear(self) -> None:
        """Drops all values."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
            if self._room is not None:
                self._room.try_to_resize(0)

    def _drop(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= self._size(old)


class FeatureCache:
    """Features of pictures that were extracted before; they are neither decoded nor computed again.

    The key is a hash of the file or the pixels as they were sent, with every setting that changes the values. The
    network is not in the key, since an engine has only one; packing and element type on the wire do not change values.

    Args:
        limit_bytes: Of all features together; 0: nothing is stored or hashed.
        observer: Receives hits and misses.
    """

    def __init__(self, limit_bytes: int, observer: Observer) -> None:
        self._cache: Cache[Features] | None = None
        if limit_bytes:
            self._cache = Cache("features", limit_bytes, observer, lambda found: sum(a.nbytes for a in _arrays(found)))

    @property
    def bytes(self) -> int:
        """Size of all features in it."""
        return self._cache.bytes if self._cache else 0

    def key(self, picture: Picture | GramletError, extraction: Extraction) -> Hashable:
        """The key of a picture's features; None where they are not stored."""
        if self._cache is None or isinstance(picture, GramletError):
            return None
        settings = (extraction.stages, extraction.forms, extraction.gram_normalization, extraction.resize)
        return caller.get().name, picture_hash(picture), *settings

    def get(self, key: Hashable) -> Features | None:
        """The features of a key, or None. Their timing has a batch size of 0: they took no pass."""
        return None if self._cache is None or key is None else self._cache.get(key)

    def put(self, key: Hashable, features: Features) -> Features:
        """Stores features and returns them; their arrays become read-only."""
        if self._cache is None or key is None:
            return features
        compact = replace(
            features,
            activations=_compact(features.activations),
            grams=_compact(features.grams),
            pooled=_compact(features.pooled),
        )
        self._cache.put(key, replace(compact, timing=Timing(batch_size=0)))
        return compact


def _arrays(features: Features) -> list[Array]:
    return [*features.activations.values(), *features.grams.values(), *features.pooled.values()]


def _compact(form: Mapping[str, Array]) -> dict[str, Array]:
    """Read-only arrays that own their memory: a view into a batch would keep the whole batch alive."""
    compact = {}
    for stage, array in form.items():
        base = array.base
        batch = base.untyped_storage().nbytes() if isinstance(base, Tensor) else base.nbytes if base is not None else 0
        compact[stage] = array.copy() if batch > array.nbytes else array
        compact[stage].flags.writeable = False
    return compact
