"""The one pass of a data set through the frozen network. Every feature goes into the cache as it is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.errors import Aborted, GramletError, InvalidInput, counted
from gramlet.feature.types import Features, Form, Model
from gramlet.tensor.hashing import picture_hash
from gramlet.train.configuration import TRAIN, Entry, Unreadable, Upload
from gramlet.train.types import Extracting, Skipped
from gramlet.types import ElementType, Picture
from numpy.typing import NDArray

from gramlet_server.feature_source import FeatureSource
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.process.scratch import allocate
from gramlet_server.train.cache import FeatureCache, FeatureSpace, PackWriter, feature_key
from gramlet_server.train.classifier import EMBEDDING, extraction, feature_of
from gramlet_server.train.views import augmented

PROGRESS_SECONDS = 0.5
"""Least time between two Extracting events."""

# Half precision halves the size of boundary activations: 400 KB a picture at layer3 and 224 pixels. It rounds an
# activation by 1/2000 at most, less than JPEG compression changes it. Embeddings are small and stay in float32.
_ELEMENT_TYPES = {Form.POOLED: ElementType.FLOAT32, Form.ACTIVATIONS: ElementType.FLOAT16}
_DTYPES: dict[Form, type[np.floating[Any]]] = {Form.POOLED: np.float32, Form.ACTIVATIONS: np.float16}


class FeatureTable:
    """Features in memory: one array for each stage, one row for each key. Boundary activations lie in files.

    Args:
        rows: Rows of each array.
        scratch: The folder of the memory-mapped files.
    """

    def __init__(self, rows: int, scratch: Path) -> None:
        self._count = rows
        self._scratch = scratch
        self._rows: dict[bytes, int] = {}
        self._arrays: dict[str, NDArray[Any]] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def put(self, stage: str, key: bytes, feature: NDArray[Any]) -> None:
        """Copies a feature into its row."""
        row = self._rows.setdefault(key, len(self._rows))
        if stage not in self._arrays:
            self._arrays[stage] = self._allocate(stage, feature)
        self._arrays[stage][row] = feature

    def array(self, stage: str) -> NDArray[Any]:
        """(M, C) embeddings float32, or (M, C, H, W) boundary activations float16."""
        return self._arrays[stage]

    def rows(self, keys: Iterable[bytes]) -> list[int]:
        """The rows of the keys, in their order."""
        return [self._rows[key] for key in keys]

    def _allocate(self, stage: str, feature: NDArray[Any]) -> NDArray[Any]:
        shape = (self._count, *feature.shape)
        if feature.ndim == 1:
            size = self._count * feature.nbytes
            return PROCESS.make(size, lambda: np.zeros(shape, feature.dtype), "entries")
        path = self._scratch / stage
        allocate(path, self._count * feature.nbytes)
        return np.memmap(path, mode="r+", dtype=feature.dtype, shape=shape)


class FeaturePass:
    """Features of every picture of a data set, and of the augmented views of its training pictures.

    Args:
        source: The network.
        model: What the network is.
        cache: Where features are kept.
        entries: The data set, split. Pictures of known hash whose features are cached need not be sent.
        skipped: Pictures that an earlier pass could not read, by their position in the entries.
        stages: `avgpool`, and the boundaries before the unfrozen stages.
        size: Side of the square that the network sees, in pixels.
        views: Augmented views of each training picture.
        unreadable: Whether a picture that cannot be read is skipped or fails the run.
        scratch: A folder for boundary activations.

    Attributes:
        entries: The same, with the hashes of all pictures that were seen.
        skipped: Pictures that could not be read, by their position in the entries.
        table: The features.
    """

    def __init__(
        self,
        source: FeatureSource,
        model: Model,
        cache: FeatureCache,
        entries: Sequence[Entry],
        *,
        skipped: Mapping[int, Skipped],
        stages: Sequence[str],
        size: int,
        views: int,
        unreadable: Unreadable,
        scratch: Path,
    ) -> None:
        self.entries = list(entries)
        self.skipped = dict(skipped)
        self._unread: dict[int, str] = {}  # why the caller could not read a picture, by its position
        self._source, self._model, self._cache = source, model, cache
        self._size, self._views, self._unreadable = size, views, unreadable
        self._spaces = {stage: _space(model, stage, size) for stage in stages}
        self._total = sum(self._view_count(position) for position in range(len(self.entries)))
        self.table = FeatureTable(self._total, scratch)
        self._cached = self.cached(key for position in range(len(self.entries)) for key in self.keys(position))

    @property
    def views_of_training(self) -> int:
        """Augmented views of each training picture."""
        return self._views

    @property
    def wanted(self) -> tuple[int, ...]:
        """Positions of the entries whose pictures are needed: of several copies of a picture, the first."""
        seen: set[str] = set()
        found = []
        for position, entry in enumerate(self.entries):
            is_cached = entry.sha256 and self._cached.issuperset(self.keys(position))
            if not is_cached and entry.sha256 not in seen and position not in self.skipped:
                found.append(position)
            if entry.sha256:
                seen.add(entry.sha256)
        return tuple(found)

    def run(self, uploads: Iterable[Upload]) -> Generator[Extracting | Skipped, None, None]:
        """Reads the cached features and extracts the others.

        Args:
            uploads: The wanted pictures, each once, in any order.

        Raises:
            InvalidInput: A picture was not asked for, or has another hash than its entry; a wanted picture is missing;
                a picture cannot be read, where that fails the run.
            Aborted: Features were removed from the store in the meantime.
        """
        self._read(self._cached)
        cached = self._done()
        yield Extracting(cached, self._total, cached, 0.0)
        intake = _Intake(self, uploads)
        yield from self._extract(intake, cached)
        self._read(intake.found_cached)
        yield from self._skip_copies()
        yield Extracting(self._done(), self._total, cached + len(intake.found_cached), 0.0)

    def keys(self, position: int) -> list[bytes]:
        """The keys of an entry's features: the picture's own, then its views'. Empty while its hash is unknown."""
        sha256 = self.entries[position].sha256
        return [feature_key(sha256, view) for view in range(self._view_count(position))] if sha256 else []

    def cached(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys whose features the cache has for every stage."""
        found = set(keys)
        for space in self._spaces.values():
            found = self._cache.known(space, found) if found else found
        return found

    def accept(self, upload: Upload, remaining: set[int]) -> None:
        """Checks an uploaded picture, takes its position out of those that remain, and notes its hash."""
        field = f"picture.entry[{upload.entry}]"
        if upload.entry not in remaining:
            raise InvalidInput("this picture was not asked for, or was sent before", field=field)
        remaining.discard(upload.entry)
        entry = self.entries[upload.entry]
        if upload.unread:
            self._unread[upload.entry] = upload.unread
            # The empty picture fails like a broken one. It is no copy of another empty one.
            sha256 = entry.sha256 or picture_hash(f"entry {upload.entry}".encode())
        else:
            sha256 = picture_hash(upload.picture)
        if entry.sha256 and sha256 != entry.sha256:
            raise InvalidInput(f"{entry.name} has another SHA-256 than its entry says", field=field)
        self.entries[upload.entry] = replace(entry, sha256=sha256)

    def views(self, upload: Upload) -> Iterator[tuple[bytes, Picture]]:
        """The picture and its augmented views, with their keys."""
        sha256 = self.entries[upload.entry].sha256
        for view, key in enumerate(self.keys(upload.entry)):
            if view == 0:
                yield key, upload.picture
                continue
            try:
                yield key, augmented(upload.picture, sha256, view, self._size, self._model.limits)
            except InvalidInput:
                return  # extracting the picture itself fails too, and that error is the one to report

    def _extract(self, intake: _Intake, cached: int) -> Iterator[Extracting | Skipped]:
        writers = {stage: PackWriter(self._cache, space) for stage, space in self._spaces.items()}
        started = reported = time.perf_counter()
        done = 0
        try:
            for outcome in self._source.extract(intake, extraction(tuple(self._spaces), self._size)):
                position, key = intake.pending.popleft()
                if isinstance(outcome, GramletError):
                    if position not in self.skipped:
                        yield self._skip(position, outcome)
                    continue
                self._keep(key, outcome, writers)
                done += 1
                if time.perf_counter() - reported > PROGRESS_SECONDS:
                    reported = time.perf_counter()
                    left = max(0, self._total - cached - done)
                    yield Extracting(cached + done, self._total, cached, (reported - started) / done * left)
        finally:
            for writer in writers.values():
                writer.close()

    def _keep(self, key: bytes, features: Features, writers: Mapping[str, PackWriter]) -> None:
        for stage, writer in writers.items():
            dtype = _DTYPES[self._spaces[stage].form]
            feature = np.ascontiguousarray(feature_of(features, stage), dtype=dtype)
            self.table.put(stage, key, feature)
            writer.add(key, feature)

    def _skip(self, position: int, error: GramletError) -> Skipped:
        name = self.entries[position].name
        if not isinstance(error, InvalidInput):
            raise error
        reason = self._unread.get(position, error.message)
        if self._unreadable is Unreadable.FAIL:
            raise InvalidInput(f"{name}: {reason}", field=f"entries[{position}]")
        self.skipped[position] = Skipped(name, reason)
        return self.skipped[position]

    def _skip_copies(self) -> Iterator[Skipped]:
        """Skips the copies of pictures that could not be read, since only the first copy was tried."""
        reasons = {self.entries[position].sha256: skipped.reason for position, skipped in self.skipped.items()}
        for position, entry in enumerate(self.entries):
            if position in self.skipped or all(key in self.table for key in self.keys(position)):
                continue
            if entry.sha256 not in reasons:
                raise Aborted(f"features of {entry.name} were removed from the store meanwhile: resume the run")
            self.skipped[position] = Skipped(entry.name, reasons[entry.sha256])
            yield self.skipped[position]

    def _view_count(self, position: int) -> int:
        return 1 + (self._views if self.entries[position].set == TRAIN else 0)

    def _done(self) -> int:
        return sum(key in self.table for position in range(len(self.entries)) for key in self.keys(position))

    def _read(self, keys: Iterable[bytes]) -> None:
        missing = [key for key in keys if key not in self.table]
        for stage, space in self._spaces.items():
            for key, feature in self._cache.read(space, missing):
                self.table.put(stage, key, feature)


class _Intake:
    """Uploaded pictures on their way to the network: checked and augmented, without those that the cache already has.

    The feature source takes pictures in a thread of its own and returns outcomes in the same order. `pending` holds the
    entry and the key of each picture whose outcome has not come yet.
    """

    def __init__(self, features: FeaturePass, uploads: Iterable[Upload]) -> None:
        self._features = features
        self._uploads = uploads
        self.pending: deque[tuple[int, bytes]] = deque()
        self.found_cached: set[bytes] = set()

    def __iter__(self) -> Iterator[Picture]:
        remaining = set(self._features.wanted)
        seen: set[bytes] = set()
        if not remaining:
            return
        for upload in self._uploads:
            self._features.accept(upload, remaining)
            for key, picture in self._features.views(upload):
                if key in seen:
                    continue
                seen.add(key)
                if self._features.cached([key]):
                    self.found_cached.add(key)
                    continue
                self.pending.append((upload.entry, key))
                yield picture
            if not remaining:
                return
        missing = self._features.entries[min(remaining)].name
        wanted = counted(len(remaining), "wanted picture")
        raise InvalidInput(f"{wanted} not sent, such as {missing!r}", field="picture")


def _space(model: Model, stage: str, size: int) -> FeatureSpace:
    form = Form.POOLED if stage == EMBEDDING else Form.ACTIVATIONS
    return FeatureSpace(model.weights_digest, model.precision, stage, form, _ELEMENT_TYPES[form], size)
