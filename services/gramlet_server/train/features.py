"""The one pass of a data set through the frozen network, with everything it needs for training kept in the cache."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gramlet.errors import Aborted, GramletError, InvalidInput
from gramlet.feature.types import Extraction, Features, Form, Model
from gramlet.tensor.hashing import picture_hash
from gramlet.train.configuration import TRAIN, Entry, Unreadable, Upload
from gramlet.train.types import Extracting, Skipped
from gramlet.types import ElementType, Picture, Resize, ResizeMode
from numpy.typing import NDArray

from gramlet_server.feature_source import FeatureSource
from gramlet_server.train.cache import FeatureCache, PackWriter, Space, feature_key
from gramlet_server.train.views import augmented

EMBEDDING = "avgpool"
PROGRESS_SECONDS = 0.5

# Half precision halves what late stages are trained from: 400 KB a picture at layer3 and 224 pixels. It rounds an
# activation by 1/2000 at most, less than a JPEG does. Embeddings are small and stay exact.
_ELEMENT_TYPES = {Form.POOLED: ElementType.FLOAT32, Form.ACTIVATIONS: ElementType.FLOAT16}
_DTYPES: dict[Form, type[np.floating[Any]]] = {Form.POOLED: np.float32, Form.ACTIVATIONS: np.float16}


def extraction(stages: Sequence[str], size: int) -> Extraction:
    """What a head takes from the network: the embedding, and activations of other stages."""
    forms = {Form.POOLED if stage == EMBEDDING else Form.ACTIVATIONS for stage in stages}
    return Extraction(
        stages=tuple(stages),
        forms=tuple(sorted(forms, key=lambda form: form.value)),
        resize=Resize(ResizeMode.CENTER_CROP, size),
    )


def feature_of(features: Features, stage: str) -> NDArray[np.float32]:
    """The embedding (C,), or the activations (C, H, W) of a stage."""
    return features.pooled[stage] if stage == EMBEDDING else features.activations[stage]


class FeaturePass:
    """Features of every picture of a data set, and of the augmented views of its training pictures.

    Args:
        entries: The data set, split. Pictures whose hash is known and whose features are cached need not be given.
        skipped: What an earlier pass could not read, by position.
        stages: `avgpool`, and the boundaries that late stages are trained from.
        scratch: Where boundary activations are gathered in memory-mapped files.

    Attributes:
        entries: The same, with their hashes, as far as the pictures were seen.
        skipped: Pictures that could not be read, by their position in the entries.
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
        self._source, self._model, self._cache = source, model, cache
        self._size, self._views, self._unreadable, self._scratch = size, views, unreadable, scratch
        self._spaces = {stage: _space(model, stage, size) for stage in stages}
        self._rows: dict[bytes, int] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._cached = self._known(key for i in range(len(self.entries)) for key in self._keys(i))

    @property
    def wanted(self) -> tuple[int, ...]:
        """Positions of the entries whose pictures are needed: of pictures that stand twice, the first."""
        seen: set[str] = set()
        found = []
        for position, entry in enumerate(self.entries):
            have = entry.sha256 and self._cached.issuperset(self._keys(position))
            if not have and entry.sha256 not in seen and position not in self.skipped:
                found.append(position)
            if entry.sha256:
                seen.add(entry.sha256)
        return tuple(found)

    def run(self, uploads: Iterable[Upload]) -> Generator[Extracting | Skipped, None, None]:
        """Reads what is cached and extracts the rest.

        Args:
            uploads: The wanted pictures, each once, in any order.

        Raises:
            InvalidInput: A picture that was not asked for, or that has another hash than promised; a wanted picture
                that is missing; an unreadable picture, where that fails the run.
        """
        total = sum(self._views_of(position) for position in range(len(self.entries)))
        self._read(self._cached)
        cached = self._resolved()
        yield Extracting(cached, total, cached, 0.0)
        intake = _Intake(self, uploads)
        writers = {stage: PackWriter(self._cache, space) for stage, space in self._spaces.items()}
        started = told = time.perf_counter()
        done = 0
        try:
            for outcome in self._source.extract(intake, extraction(tuple(self._spaces), self._size)):
                position, key = intake.pending.popleft()
                if isinstance(outcome, GramletError):
                    if position not in self.skipped:
                        yield self._skip(position, outcome)
                    continue
                for stage, writer in writers.items():
                    form = self._spaces[stage].form
                    feature = np.ascontiguousarray(feature_of(outcome, stage), dtype=_DTYPES[form])
                    self._store(stage, key, feature)
                    writer.add(key, feature)
                done += 1
                if time.perf_counter() - told > PROGRESS_SECONDS:
                    told = time.perf_counter()
                    left = max(0, total - cached - done)
                    yield Extracting(cached + done, total, cached, (told - started) / done * left)
        finally:
            for writer in writers.values():
                writer.close()
        self._read(intake.found_cached)
        yield from self._skip_copies()
        yield Extracting(self._resolved(), total, cached + len(intake.found_cached), 0.0)

    def _skip_copies(self) -> Iterator[Skipped]:
        """Skips the copies of pictures that could not be read: only the first was tried."""
        reasons = {self.entries[position].sha256: skipped.reason for position, skipped in self.skipped.items()}
        for position, entry in enumerate(self.entries):
            if position in self.skipped or all(key in self._rows for key in self._keys(position)):
                continue
            if entry.sha256 not in reasons:
                raise Aborted(f"features of {entry.name} were removed from the store meanwhile: resume the run")
            self.skipped[position] = Skipped(entry.name, reasons[entry.sha256])
            yield self.skipped[position]

    def array(self, stage: str) -> NDArray[Any]:
        """(M, C) embeddings float32, or (M, C, H, W) boundary activations float16, on disk."""
        return self._arrays[stage]

    def rows(self, position: int) -> list[int]:
        """Rows of the arrays that belong to an entry: the picture's own, then its views'."""
        return [self._rows[key] for key in self._keys(position)]

    # What `_Intake` needs, in the thread in which pictures are taken.

    def accept(self, upload: Upload, remaining: set[int]) -> None:
        """Checks an uploaded picture and notes its hash."""
        field = f"picture.entry[{upload.entry}]"
        if upload.entry not in remaining:
            raise InvalidInput("this picture was not asked for, or was sent before", field=field)
        remaining.discard(upload.entry)
        entry = self.entries[upload.entry]
        sha256 = picture_hash(upload.picture)
        if entry.sha256 and sha256 != entry.sha256:
            raise InvalidInput(f"{entry.name} has another SHA-256 than its entry says", field=field)
        self.entries[upload.entry] = replace(entry, sha256=sha256)

    def pictures_of(self, upload: Upload) -> Iterator[tuple[bytes, Picture]]:
        """The picture and its views, with their keys."""
        sha256 = self.entries[upload.entry].sha256
        for view, key in enumerate(self._keys(upload.entry)):
            if view == 0:
                yield key, upload.picture
                continue
            try:
                yield key, augmented(upload.picture, sha256, view, self._size, self._model.limits)
            except InvalidInput:
                return  # the picture itself fails as well, and is reported once

    def cached_among(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that the cache has features for."""
        return self._known(keys)

    def _views_of(self, position: int) -> int:
        return 1 + (self._views if self.entries[position].set == TRAIN else 0)

    def _keys(self, position: int) -> list[bytes]:
        sha256 = self.entries[position].sha256
        return [feature_key(sha256, view) for view in range(self._views_of(position))] if sha256 else []

    def _known(self, keys: Iterable[bytes]) -> set[bytes]:
        found = set(keys)
        for space in self._spaces.values():
            found = self._cache.known(space, found) if found else found
        return found

    def _resolved(self) -> int:
        return sum(key in self._rows for position in range(len(self.entries)) for key in self._keys(position))

    def _read(self, keys: Iterable[bytes]) -> None:
        wanted = [key for key in keys if key not in self._rows]
        for stage, space in self._spaces.items():
            for key, feature in self._cache.read(space, wanted):
                self._store(stage, key, feature)

    def _store(self, stage: str, key: bytes, feature: NDArray[Any]) -> None:
        row = self._rows.setdefault(key, len(self._rows))
        if stage not in self._arrays:
            self._arrays[stage] = self._allocate(stage, feature)
        self._arrays[stage][row] = feature

    def _allocate(self, stage: str, feature: NDArray[Any]) -> NDArray[Any]:
        rows = sum(self._views_of(position) for position in range(len(self.entries)))
        if feature.ndim == 1:
            return np.zeros((rows, *feature.shape), feature.dtype)
        path = self._scratch / f"{stage}.npy"
        return np.lib.format.open_memmap(path, mode="w+", dtype=feature.dtype, shape=(rows, *feature.shape))

    def _skip(self, position: int, error: GramletError) -> Skipped:
        name = self.entries[position].name
        if not isinstance(error, InvalidInput):
            raise error
        if self._unreadable is Unreadable.FAIL:
            raise InvalidInput(f"{name}: {error.message}", field=f"entries[{position}]")
        self.skipped[position] = Skipped(name, error.message)
        return self.skipped[position]


class _Intake:
    """Uploaded pictures on their way to the network: checked, augmented, without those that are cached after all.

    The feature source takes pictures in a thread of its own, and returns outcomes in the same order: `pending` says
    whose they are.
    """

    def __init__(self, features: FeaturePass, uploads: Iterable[Upload]) -> None:
        self._features = features
        self._uploads = uploads
        self.pending: deque[tuple[int, bytes]] = deque()
        self.found_cached: set[bytes] = set()

    def __iter__(self) -> Iterator[Picture]:
        remaining = set(self._features.wanted)
        under_way: set[bytes] = set()
        if not remaining:
            return
        for upload in self._uploads:
            self._features.accept(upload, remaining)
            for key, picture in self._features.pictures_of(upload):
                if key in under_way:
                    continue
                under_way.add(key)
                if self._features.cached_among([key]):
                    self.found_cached.add(key)
                    continue
                self.pending.append((upload.entry, key))
                yield picture
            if not remaining:
                return
        missing = self._features.entries[min(remaining)].name
        raise InvalidInput(f"{len(remaining)} wanted pictures were not sent, the first is {missing!r}", field="picture")


def _space(model: Model, stage: str, size: int) -> Space:
    form = Form.POOLED if stage == EMBEDDING else Form.ACTIVATIONS
    return Space(model.weights_digest, model.precision, stage, form, _ELEMENT_TYPES[form], size)
