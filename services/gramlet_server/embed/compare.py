"""Descriptors of the same pictures side by side, from one pass through the network, judged by the items' labels."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings, Metric
from gramlet.embed.types import Comparison
from gramlet.feature.types import Features
from gramlet.types import Array

from gramlet_server.embed import project, quality
from gramlet_server.embed.descriptors import Describer, to_unit_length
from gramlet_server.embed.distances import Sketcher
from gramlet_server.embed.geometry import RowPoints
from gramlet_server.embed.project import FinishedLayout

_ITEMS = 1000
_SKETCH_SIZE = 2048
_MAPS = 8


@dataclass(frozen=True)
class Candidate:
    """A descriptor to compare."""

    descriptor: Descriptor
    stages: tuple[str, ...]
    balance_stages: bool


class Comparer:
    """Takes the features of pictures one after the other, then compares descriptors of them.

    Args:
        settings: The map's; it is compared first.
        stages: The stages of the network whose descriptors are compared, in order of depth.
        count: Pictures to come, at most. Of more than 1,000 a random sample is compared.
    """

    def __init__(self, settings: MapSettings, stages: Sequence[str], count: int) -> None:
        self._settings = settings
        self._candidates = candidates(settings, stages)
        self._describer = Describer(settings)
        chosen = np.random.default_rng(settings.seed).permutation(count)[:_ITEMS]
        self._chosen = {int(index) for index in chosen}
        self._sketchers: dict[int, Sketcher] = {}
        self._rows: dict[tuple[Descriptor, str], list[tuple[Array, float]]] = {part: [] for part in self.parts}
        self._labels: list[str] = []
        self._seen = 0

    @property
    def parts(self) -> list[tuple[Descriptor, str]]:
        """The descriptors of single stages that the candidates consist of."""
        return list(dict.fromkeys((one.descriptor, stage) for one in self._candidates for stage in one.stages))

    def add(self, features: Features, label: str) -> None:
        """Takes the next picture's features."""
        if self._seen in self._chosen and label:
            self._labels.append(label)
            for descriptor, stage in self.parts:
                part = self._describer.part(features, descriptor, stage)
                length = float(np.linalg.norm(part))
                self._rows[descriptor, stage].append((self._sketch(to_unit_length(part)), length))
        self._seen += 1

    def compare(self) -> Generator[tuple[int, int], None, tuple[Comparison, ...]]:
        """Yields how many of how many descriptors are compared. Returns them, the best first; none without labels."""
        if len(set(self._labels)) < 2:
            return ()
        k = self._settings.quality_neighbors
        accuracy = {}
        for candidate in self._candidates:
            accuracy[candidate] = quality.label_accuracy(self._points(candidate), self._labels, k)
        ranked = sorted(self._candidates, key=lambda candidate: -accuracy[candidate])
        mapped = dict.fromkeys([*ranked[:_MAPS], *self._candidates[:2]])  # the map's own and the classic one
        on_map: dict[Candidate, float] = {}
        for candidate in mapped:
            yield len(on_map), len(mapped)
            on_map[candidate] = self._on_map(candidate)
        yield len(on_map), len(mapped)
        return tuple(
            Comparison(one.descriptor, one.stages, one.balance_stages, accuracy[one], on_map.get(one)) for one in ranked
        )

    def _on_map(self, candidate: Candidate) -> float:
        points = self._points(candidate)
        settings, _ = project.fit_to_items(self._settings, points.count)
        settings = replace(settings, tsne=replace(settings.tsne, perplexities=settings.tsne.perplexities[:1]))
        *_, last = project.layouts(points, settings)
        assert isinstance(last, FinishedLayout)
        layout = RowPoints(last.coordinates.astype(np.float32), 0)
        return quality.label_accuracy(layout, self._labels, self._settings.quality_neighbors)

    def _points(self, candidate: Candidate) -> RowPoints:
        parts = [self._rows[candidate.descriptor, stage] for stage in candidate.stages]
        blocks = [
            np.stack([row if candidate.balance_stages else row * np.float32(length) for row, length in part])
            for part in parts
        ]
        rows = np.concatenate(blocks, axis=1)
        if self._settings.metric is not Metric.EUCLIDEAN:
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        return RowPoints(rows, self._settings.seed)

    def _sketch(self, part: Array) -> Array:
        if part.size not in self._sketchers:
            self._sketchers[part.size] = Sketcher(part.size, _SKETCH_SIZE, self._settings.seed)
        return self._sketchers[part.size](part)


def candidates(settings: MapSettings, stages: Sequence[str]) -> tuple[Candidate, ...]:
    """The map's own descriptor, the classic one, then each stage and each pair of neighboring stages in every way."""
    own = Candidate(settings.descriptor, settings.stages, settings.balance_stages)
    classic = Candidate(Descriptor.GRAM, tuple(stages[:4]), balance_stages=False)
    sets = [*((stage,) for stage in stages), *pairwise(stages), tuple(stages[:4])]
    every = [
        Candidate(descriptor, one, balance)
        for descriptor in (Descriptor.GRAM, Descriptor.POOLED)
        for one in sets
        for balance in (True, False)
    ]
    return tuple(dict.fromkeys([own, classic, *every]))
