"""A cache bounded by bytes, least recently used first out."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from torch import Tensor

from gramlet_server.observe import Observer


def picture_digest(picture: np.ndarray[Any, Any]) -> str:
    """A name for a picture's pixels: SHA-256 over shape, type and values."""
    header = f"{picture.dtype} {picture.shape} ".encode()
    return hashlib.sha256(header + np.ascontiguousarray(picture).tobytes()).hexdigest()


class TensorCache:
    """Tensors by key, at most so many bytes of them. Safe to use from several threads."""

    def __init__(self, name: str, limit_bytes: int, observer: Observer) -> None:
        self._name = name
        self._limit = limit_bytes
        self._observer = observer
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor of a key, if it is still here."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
        self._observer.cache(self._name, hit=found is not None)
        return found

    def put(self, key: Hashable, value: Tensor) -> None:
        """Keeps a tensor and drops what was not used for longest. One larger than the cache is not kept."""
        if value.nbytes > self._limit:
            return
        with self._lock:
            self._forget(key)
            self._entries[key] = value
            self._bytes += value.nbytes
            while self._bytes > self._limit:
                self._forget(next(iter(self._entries)))

    def _forget(self, key: Hashable) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self._bytes -= old.nbytes


Compute = Callable[[list[str]], dict[str, Tensor]]


def cached_stages(cache: TensorCache, prefix: Hashable, stages: list[str], compute: Compute) -> dict[str, Tensor]:
    """One tensor a stage, from the cache where it has them; the missing ones are computed together, and kept."""
    found = {stage: cache.get((prefix, stage)) for stage in stages}
    missing = [stage for stage, tensor in found.items() if tensor is None]
    computed = compute(missing) if missing else {}
    for stage, tensor in computed.items():
        cache.put((prefix, stage), tensor)
    return {stage: computed[stage] if tensor is None else tensor for stage, tensor in found.items()}
