"""From items to descriptors: vectors (n,) whose Euclidean distance is the metric that the caller chose.

A Gram matrix is symmetric. Its upper triangle, with the off-diagonal elements times √2, has the same inner products
in half the space: 168,384 elements an item for the four default stages of resnet50 instead of 335,872.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from gramlet.embed.settings import Descriptor, MapSettings, Metric
from gramlet.embed.types import BadItem, Item
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.types import Extraction, Features, Form, GramNormalization
from gramlet.types import Array, Picture
from numpy.typing import NDArray

from gramlet_server.feature_source import FeatureSource

_FORMS = {Descriptor.GRAM: Form.GRAM, Descriptor.POOLED: Form.POOLED}


@dataclass(frozen=True)
class ItemDescriptor:
    """The outcome for one item.

    Attributes:
        item: The item.
        outcome: Its descriptor (n,), or the error with which it failed.
        size: Height and width in pixels of the picture that the network was given; (0, 0) where there was none.
    """

    item: Item | BadItem
    outcome: Array | GramletError
    size: tuple[int, int] = (0, 0)


class Describer:
    """Makes descriptors from features or from vectors.

    Attributes:
        settings: The map's settings.
        undirected: How many descriptors had length 0, and so no direction. The cosine and correlation metrics keep
            them as they are.
    """

    def __init__(self, settings: MapSettings) -> None:
        self.settings = settings
        self.undirected = 0
        self._triangles: dict[int, tuple[NDArray[np.intp], Array]] = {}

    def of_features(self, features: Features) -> Array:
        """The descriptor (n,) of a picture, from its Gram matrices or its pooled activations.

        Raises:
            InvalidInput: A feature is not finite.
        """
        stages = self.settings.stages
        if self.settings.descriptor is Descriptor.GRAM:
            parts = [self._pack(features.grams[stage]) for stage in stages]
            ones = [self._triangle(features.grams[stage].shape[0])[1] for stage in stages]
        else:
            parts = [features.pooled[stage].astype(np.float32).ravel() for stage in stages]
            ones = [np.ones_like(part) for part in parts]
        if self.settings.balance_stages and len(parts) > 1:
            parts = [_to_unit_length(part) for part in parts]
        return self._apply_metric(np.concatenate(parts), ones)

    def of_vector(self, vector: Array) -> Array:
        """The descriptor (n,) of a vector (n,) that came with the item.

        Raises:
            InvalidInput: It has another shape, is empty, or has an element that is not finite.
        """
        if vector.ndim != 1 or vector.size == 0:
            raise InvalidInput(f"a vector has shape (n,), not {vector.shape}", field="vector")
        return self._apply_metric(vector.astype(np.float32), [np.ones(vector.size, np.float32)])

    def _apply_metric(self, descriptor: Array, ones: list[Array]) -> Array:
        """Centers and scales a descriptor as the metric demands.

        `ones` is the descriptor of matrices of ones: in a packed triangle the elements have different weights, so the
        mean of the matrices' elements is a projection on it.
        """
        if not np.isfinite(descriptor).all():
            raise InvalidInput("an element is not a finite number", field="vector")
        if self.settings.metric is Metric.CORRELATION:
            one = np.concatenate(ones)
            mean = np.float32((descriptor @ one) / (one @ one))
            descriptor = descriptor - mean * one
        if self.settings.metric is not Metric.EUCLIDEAN:
            descriptor = _to_unit_length(descriptor)
            self.undirected += not descriptor.any()
        return descriptor

    def _pack(self, gram: Array) -> Array:
        indices, weights = self._triangle(gram.shape[0])
        packed: Array = gram.ravel().take(indices)
        packed *= weights
        return packed

    def _triangle(self, n: int) -> tuple[NDArray[np.intp], Array]:
        """Flat indices of the upper triangle of an (n, n) matrix, and their weights: 1, and √2 off the diagonal."""
        if n not in self._triangles:
            rows, columns = np.triu_indices(n)
            weights = np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)
            self._triangles[n] = rows * n + columns, weights
        return self._triangles[n]


def describe(
    items: Iterable[Item | BadItem], describer: Describer, features: FeatureSource
) -> Iterator[ItemDescriptor]:
    """The descriptor, or the error, of each item, in order. Only pictures need the network."""
    if describer.settings.descriptor is Descriptor.VECTOR:
        for item in items:
            yield ItemDescriptor(item, _from_vector(item, describer))
    else:
        yield from _from_pictures(items, describer, features)


def extraction_of(settings: MapSettings) -> Extraction:
    """The features that the network has to extract for a map of pictures."""
    return Extraction(
        stages=settings.stages,
        forms=(_FORMS[settings.descriptor],),
        gram_normalization=GramNormalization.POSITIONS,
        triangle=True,
        resize=settings.resize,
    )


def _from_pictures(
    items: Iterable[Item | BadItem], describer: Describer, features: FeatureSource
) -> Iterator[ItemDescriptor]:
    """The source takes pictures ahead of its outcomes, so the items whose outcome is still to come wait in a queue.

    An item without a picture waits there too but has no outcome: it is reported when it reaches the front.
    """
    waiting: deque[Item | BadItem] = deque()

    def pictures() -> Iterator[Picture]:
        for item in items:
            waiting.append(item)
            if isinstance(item, Item) and item.picture is not None:
                yield item.picture

    for outcome in features.extract(pictures(), extraction_of(describer.settings)):
        yield from _without_picture(waiting)
        size = (outcome.height, outcome.width) if isinstance(outcome, Features) else (0, 0)
        yield ItemDescriptor(waiting.popleft(), _from_outcome(outcome, describer), size)
    yield from _without_picture(waiting)


def _without_picture(waiting: deque[Item | BadItem]) -> Iterator[ItemDescriptor]:
    """Takes the items without a picture from the front of the queue, each with its error."""
    while waiting:
        item = waiting[0]
        if isinstance(item, Item) and item.picture is not None:
            return
        waiting.popleft()
        missing = InvalidInput("the item has no picture", field="item.picture")
        yield ItemDescriptor(item, item.error if isinstance(item, BadItem) else missing)


def _from_outcome(outcome: Features | GramletError, describer: Describer) -> Array | GramletError:
    if isinstance(outcome, GramletError):
        return outcome
    try:
        return describer.of_features(outcome)
    except InvalidInput as error:
        return error


def _from_vector(item: Item | BadItem, describer: Describer) -> Array | GramletError:
    if isinstance(item, BadItem):
        return item.error
    if item.vector is None:
        return InvalidInput("the item has no vector", field="item.vector")
    try:
        return describer.of_vector(item.vector)
    except InvalidInput as error:
        return error


def _to_unit_length(part: Array) -> Array:
    length = np.float32(np.linalg.norm(part))
    return part / length if length > 0 else part
