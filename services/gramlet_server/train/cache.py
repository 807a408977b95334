"""A content-addressed cache of features in the store.

A feature depends on the picture, whose hash (with the number of the augmented view) is its key, and on its space: the
network's weights and precision, the stage and form, and the preprocessing.

On S3 a request costs the same for 32 bytes as for a megabyte, so features are stored in packs of a few MiB. A pack is
two objects: `<pack>.npy`, the features, and `<pack>.keys`, their keys, 32 bytes each. The keys are written last, so a
pack whose writer died is never found. To look features up, a process lists the space, reads the `.keys` objects that
are new to it, and then fetches only packs that hold wanted features.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.errors import DataLoss, NotFound
from gramlet.feature.types import Form
from gramlet.types import ElementType
from numpy.typing import NDArray

from gramlet_server.process.identity import caller
from gramlet_server.runs.store import Store, intact

CACHE = "features"
"""The prefix of everything in the cache."""
KEY_BYTES = 32
PACK_BYTES = 8 * 1024 * 1024
PACK_SECONDS = 10.0
"""A pack is written when it is full or this old: a killed server loses at most so many seconds of work."""

Feature = NDArray[Any]


@dataclass(frozen=True)
class FeatureSpace:
    """Everything but the picture that a feature depends on. `size`: side in pixels of what the network sees."""

    weights_digest: str
    precision: str
    stage: str
    form: Form
    element_type: ElementType
    size: int

    @property
    def prefix(self) -> str:
        """The prefix of its packs in the store."""
        parts = (self.weights_digest, self.precision, self.stage, self.form.value, self.element_type.value, self.size)
        # "1" is the version of this layout and of the preprocessing: Lanczos, center crop.
        return f"{CACHE}/" + hashlib.sha256(repr(("1", *parts)).encode()).hexdigest()[:32]


class FeatureCache:
    """Features by space and key. Safe to use from several threads, and by several processes on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._locations: dict[FeatureSpace, dict[bytes, tuple[str, int]]] = defaultdict(dict)
        self._read: dict[FeatureSpace, set[str]] = defaultdict(set)

    def known(self, space: FeatureSpace, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys whose features are in the store."""
        with self._lock:
            self._refresh(space)
            return {key for key in keys if key in self._locations[space]}

    def read(self, space: FeatureSpace, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Feature]]:
        """Yields (key, feature) of keys that `known` returned, pack by pack, without those deleted since then."""
        with self._lock:
            locations = {key: self._locations[space][key] for key in keys if key in self._locations[space]}
        by_pack: Mapping[str, list[tuple[bytes, int]]] = defaultdict(list)
        for key, (pack, row) in locations.items():
            by_pack[pack].append((key, row))
        for pack, wanted in by_pack.items():
            try:
                found = self._rows(f"{space.prefix}/{pack}.npy", [row for _, row in wanted])
            except NotFound:
                self._forget(space, pack)
                continue
            except DataLoss as error:  # its features are computed again
                self._store.report(error)
                self._store.delete(f"{space.prefix}/{pack}.keys")
                self._forget(space, pack)
                continue
            yield from zip((key for key, _ in wanted), found, strict=True)

    def write(self, space: FeatureSpace, features: Mapping[bytes, Feature]) -> None:
        """Writes a pack. Writing the same pack again changes nothing."""
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

    def _rows(self, key: str, rows: Sequence[int]) -> list[Feature]:
        data = self._store.get(key)
        with intact(key):
            array = np.load(io.BytesIO(data), allow_pickle=False)
            return [array[row] for row in rows]

    def _refresh(self, space: FeatureSpace) -> None:
        for entry in self._store.list(space.prefix):
            pack, _, kind = entry.key.rpartition("/")[2].partition(".")
            if kind == "keys" and pack not in self._read[space]:
                self._index(space, pack, self._store.get(entry.key))

    def _index(self, space: FeatureSpace, pack: str, keys: bytes) -> None:
        self._read[space].add(pack)
        for row, start in enumerate(range(0, len(keys), KEY_BYTES)):
            self._locations[space].setdefault(keys[start : start + KEY_BYTES], (pack, row))

    def _forget(self, space: FeatureSpace, pack: str) -> None:
        with self._lock:
            self._read[space].discard(pack)
            self._locations[space] = {
                key: location for key, location in self._locations[space].items() if location[0] != pack
            }


class PackWriter:
    """Collects features into packs. `close` writes the last one."""

    def __init__(self, cache: FeatureCache, space: FeatureSpace, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._space = space
        self._clock = clock
        self._features: dict[bytes, Feature] = {}
        self._bytes = 0
        self._since = clock()

    def add(self, key: bytes, feature: Feature) -> None:
        """Adds a feature; writes the pack when it is full or old enough."""
        if not self._features:
            self._since = self._clock()
        self._features[key] = feature
        self._bytes += feature.nbytes
        if self._bytes >= PACK_BYTES or self._clock() - self._since >= PACK_SECONDS:
            self.close()

    def close(self) -> None:
        """Writes the features that are left."""
        self._cache.write(self._space, self._features)
        self._features, self._bytes = {}, 0


def feature_key(sha256: str, view: int) -> bytes:
    """The key of a picture's augmented view among those of the caller in a space; view 0 is the picture itself."""
    digest = bytes.fromhex(sha256)
    if name := caller.get().name:  # nobody learns whose pictures the server has seen
        digest = hashlib.sha256(digest + f" of {name}".encode()).digest()
    return digest if view == 0 else hashlib.sha256(digest + f" view {view}".encode()).digest()
