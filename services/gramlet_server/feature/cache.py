"""Caches bounded by bytes, least recently used first out: targets of stylizations, and features of pictures."""

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

from gramlet_server.telemetry import Observer

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by key, at most so many bytes of them. Safe to use from several threads.

    Args:
        name: For the metrics.
        limit_bytes: Of all values together.
        observer: Told of hits and misses.
        size: Bytes of a value.
    """

    def __init__(self, name: str, limit_bytes: int, observer: Observer, size: Callable[[Value], int]) -> None:
        self._name = name
        self._limit = limit_bytes
        self._observer = observer
        self._size = size
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Of the values that it holds."""
        return self._bytes

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, if it is still here."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
        self._observer.cache(self._name, hit=found is not None)
        return found

    def put(self, key: Hashable, value: Value) -> None:
        """Keeps a value and drops what was not used for longest. One larger than the cache is not kept."""
        size = self._size(value)
        if size > self._limit:
            return
        with self._lock:
            self._forget(key)
            self._entries[key] = value
            self._bytes += size
            while self._bytes > self._limit:
                self._forget(next(iter(self._entries)))

    def _forget(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= self._size(old)


class FeatureCache:
    """Features of pictures that were seen before. What is found is neither decoded nor computed again.

    They are found by a hash of what was sent, the file or the pixels, and by all that their values depend on. The
    network is always the same one, and how they travel (packing, element type) is not of the values.

    Args:
        limit_bytes: Of all features together; 0: nothing is kept, and nothing hashed.
        observer: Told of hits and misses.
    """

    def __init__(self, limit_bytes: int, observer: Observer) -> None:
        self._cache: Cache[Features] | None = None
        if limit_bytes:
            self._cache = Cache("features", limit_bytes, observer, lambda kept: sum(a.nbytes for a in _arrays(kept)))

    @property
    def bytes(self) -> int:
        """Of the features that it holds."""
        return self._cache.bytes if self._cache else 0

    def key(self, picture: Picture | GramletError, extraction: Extraction) -> Hashable:
        """The name of a picture's features; None where they are not kept."""
        if self._cache is None or isinstance(picture, GramletError):
            return None
        asked = (extraction.stages, extraction.forms, extraction.gram_normalization, extraction.resize)
        return picture_hash(picture), *asked

    def get(self, key: Hashable) -> Features | None:
        """Features that are here. Their timing is of no pass: a batch of none."""
        return None if self._cache is None or key is None else self._cache.get(key)

    def put(self, key: Hashable, features: Features) -> Features:
        """Keeps features, read-only from now on, and returns them."""
        if self._cache is None or key is None:
            return features
        own = replace(
            features,
            activations=_alone(features.activations),
            grams=_alone(features.grams),
            pooled=_alone(features.pooled),
        )
        self._cache.put(key, replace(own, timing=Timing(batch_size=0)))
        return own


def _arrays(features: Features) -> list[Array]:
    return [*features.activations.values(), *features.grams.values(), *features.pooled.values()]


def _alone(form: Mapping[str, Array]) -> dict[str, Array]:
    """Read-only, and each in memory of its own: a view would keep what the whole pass gave."""
    alone = {}
    for stage, array in form.items():
        whole = array.base
        is_view = isinstance(whole, Tensor) and whole.untyped_storage().nbytes() > array.nbytes
        alone[stage] = array.copy() if is_view else array
        alone[stage].flags.writeable = False
    return alone


Compute = Callable[[list[str]], dict[str, Tensor]]


def cached_stages(cache: Cache[Tensor], prefix: Hashable, stages: list[str], compute: Compute) -> dict[str, Tensor]:
    """One tensor a stage, from the cache where it has them; the missing ones are computed together, and kept."""
    found = {stage: cache.get((prefix, stage)) for stage in stages}
    missing = [stage for stage, tensor in found.items() if tensor is None]
    computed = compute(missing) if missing else {}
    for stage, tensor in computed.items():
        cache.put((prefix, stage), tensor)
    return {stage: computed[stage] if tensor is None else tensor for stage, tensor in found.items()}
