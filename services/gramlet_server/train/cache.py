"""Features that were computed once are not computed again: a content-addressed cache in the store.

A feature is found under what it depends on: the picture's hash (and the number of the augmented view) within a space,
which is the network's weights and precision, the stage and its form, and the preprocessing.

On S3 a request costs the same for 32 bytes as for a megabyte, so features lie in packs of a few MiB. A pack is two
objects: `<pack>.npy`, the features, and `<pack>.keys`, their keys, 32 bytes each. The keys are written last: a pack
whose writer died is never seen. To look pictures up, a process lists the space, reads the keys it has not read before,
and then fetches only packs that hold something it wants.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.errors import NotFound
from gramlet.feature.types import Form
from gramlet.types import ElementType
from numpy.typing import NDArray

from gramlet_server.runs.store import Store

KEY_BYTES = 32
PACK_BYTES = 8 * 1024 * 1024
PACK_SECONDS = 10.0
"""A pack is written when it is full or this old, so that a killed server loses little work."""

Feature = NDArray[Any]


@dataclass(frozen=True)
class Space:
    """Everything but the picture that a feature depends on."""

    weights_digest: str
    precision: str
    stage: str
    form: Form
    element_type: ElementType
    size: int

    @property
    def prefix(self) -> str:
        """Where its packs lie in the store."""
        parts = (self.weights_digest, self.precision, self.stage, self.form.value, self.element_type.value, self.size)
        # "1" is the version of this layout and of the preprocessing: Lanczos, center crop.
        return "features/" + hashlib.sha256(repr(("1", *parts)).encode()).hexdigest()[:32]


class FeatureCache:
    """Features by space and key. Safe to use from several threads, and by several processes on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._places: dict[Space, dict[bytes, tuple[str, int]]] = defaultdict(dict)
        self._read: dict[Space, set[str]] = defaultdict(set)

    def known(self, space: Space, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that the store has features for."""
        with self._lock:
            self._refresh(space)
            return {key for key in keys if key in self._places[space]}

    def read(self, space: Space, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Feature]]:
        """The features of keys that are known, in any order, pack by pack. What was deleted meanwhile is left out."""
        with self._lock:
            places = {key: self._places[space][key] for key in keys if key in self._places[space]}
        by_pack: Mapping[str, list[tuple[bytes, int]]] = defaultdict(list)
        for key, (pack, row) in places.items():
            by_pack[pack].append((key, row))
        for pack, wanted in by_pack.items():
            try:
                rows = np.load(io.BytesIO(self._store.get(f"{space.prefix}/{pack}.npy")), allow_pickle=False)
            except NotFound:
                self._forget(space, pack)
                continue
            for key, row in wanted:
                yield key, rows[row]

    def write(self, space: Space, features: Mapping[bytes, Feature]) -> None:
        """Writes a pack. Writing the same pack twice changes nothing."""
        if not features:
            return
        keys = b"".join(features)
        pack = hashlib.sha256(keys).hexdigest()[:32]
        buffer = io.BytesIO()
        np.save(buffer, np.stack(list(features.values())), allow_pickle=False)
        self._store.put(f"{space.prefix}/{pack}.npy", buffer.getvalue())
        self._store.put(f"{space.prefix}/{pack}.keys", keys)
        with self._lock:
            self._index(space, pack, keys)

    def _refresh(self, space: Space) -> None:
        for entry in self._store.list(space.prefix):
            pack, _, kind = entry.key.rpartition("/")[2].partition(".")
            if kind == "keys" and pack not in self._read[space]:
                self._index(space, pack, self._store.get(entry.key))

    def _index(self, space: Space, pack: str, keys: bytes) -> None:
        self._read[space].add(pack)
        for row, start in enumerate(range(0, len(keys), KEY_BYTES)):
            self._places[space].setdefault(keys[start : start + KEY_BYTES], (pack, row))

    def _forget(self, space: Space, pack: str) -> None:
        with self._lock:
            self._read[space].discard(pack)
            self._places[space] = {k: place for k, place in self._places[space].items() if place[0] != pack}


class PackWriter:
    """Gathers features into packs. `close` writes the last one."""

    def __init__(self, cache: FeatureCache, space: Space, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._space = space
        self._clock = clock
        self._features: dict[bytes, Feature] = {}
        self._bytes = 0
        self._since = clock()

    def add(self, key: bytes, feature: Feature) -> None:
        """Takes one feature; writes a pack when it is time."""
        if not self._features:
            self._since = self._clock()
        self._features[key] = feature
        self._bytes += feature.nbytes
        if self._bytes >= PACK_BYTES or self._clock() - self._since >= PACK_SECONDS:
            self.close()

    def close(self) -> None:
        """Writes what was gathered."""
        self._cache.write(self._space, self._features)
        self._features, self._bytes = {}, 0


def feature_key(sha256: str, view: int) -> bytes:
    """The key of a picture's augmented view within a space; view 0 is the picture itself."""
    digest = bytes.fromhex(sha256)
    return digest if view == 0 else hashlib.sha256(digest + f" view {view}".encode()).digest()
