"""Prediction: from pictures to calibrated probabilities of a head's classes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from gramlet.errors import GramletError, InvalidInput
from gramlet.train.types import ClassProbability, Head, HeadRef, Prediction
from gramlet.types import Array, Picture

from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature_source import FeatureSource
from gramlet_server.train.classifier import BaseStages, Classifier, check_network, extraction, feature_of, restore
from gramlet_server.train.registry import Registry

CACHE_BYTES = 512 * 1024 * 1024
BATCH = 16
"""Pictures whose features are in memory at once."""


class Predictor:
    """Classifies pictures with any head of a store. Recently used heads stay in memory.

    Args:
        features: The network.
        registry: The heads.
        base: The network's weights, for heads with unfrozen stages.
        cache_bytes: Memory for heads.
    """

    def __init__(
        self, features: FeatureSource, registry: Registry, base: BaseStages, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._features = features
        self._registry = registry
        self._base = base
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        # By the hash of a head's file, so that a name and version that mean another head are never mixed up.
        self._loaded: OrderedDict[str, Classifier] = OrderedDict()

    @property
    def cached_bytes(self) -> int:
        """Memory that the heads take."""
        return sum(map(_size, self._loaded.values()))

    def predict(
        self, ref: HeadRef, pictures: Sequence[Picture | GramletError], top_k: int
    ) -> tuple[HeadRef, list[Prediction | GramletError]]:
        """The head that was used, and the `top_k` most probable classes of each picture. A bad picture fails alone.

        Raises:
            InvalidInput: No pictures.
            NotFound: There is no such head.
            FailedPrecondition: The head was trained on another network, or needs weights that this process lacks.
        """
        if not pictures:
            raise InvalidInput("send at least one picture", field="pictures")
        head, content = self._registry.find(ref)
        check_network(head, self._features.model())
        classifier = self._classifier(head, content)
        outcomes: list[Prediction | GramletError] = []
        for start in range(0, len(pictures), BATCH):
            outcomes += self._batch(head, classifier, pictures[start : start + BATCH], start, top_k)
        return HeadRef(head.name, head.version), outcomes

    def _batch(
        self,
        head: Head,
        classifier: Classifier,
        pictures: Sequence[Picture | GramletError],
        start: int,
        top_k: int,
    ) -> Iterator[Prediction | GramletError]:
        wanted = extraction([head.feature_stage], head.size)
        extracted = self._features.extract([item for item in pictures if not isinstance(item, GramletError)], wanted)
        outcomes = [item if isinstance(item, GramletError) else next(extracted) for item in pictures]
        inputs = [feature_of(item, head.feature_stage) for item in outcomes if not isinstance(item, GramletError)]
        set_single_threaded(classifier.late is None)
        rows = iter(classifier.probabilities(np.stack(inputs)) if inputs else ())
        for number, outcome in enumerate(outcomes, start):
            if isinstance(outcome, GramletError):
                outcome.field = f"pictures[{number}]"
                yield outcome
            else:
                yield Prediction(_top(head.classes, next(rows), top_k), outcome.timing)

    def _classifier(self, head: Head, content: str) -> Classifier:
        with self._lock:
            if content in self._loaded:
                self._loaded.move_to_end(content)
                return self._loaded[content]
        classifier = restore(head, self._registry.weights(head.name, content), self._base)
        with self._lock:
            self._loaded[content] = classifier
            while len(self._loaded) > 1 and self.cached_bytes > self._cache_bytes:
                self._loaded.popitem(last=False)
        return classifier


def _top(classes: Sequence[str], probabilities: Array, k: int) -> tuple[ClassProbability, ...]:
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(ClassProbability(classes[i], float(probabilities[i])) for i in order)


def _size(classifier: Classifier) -> int:
    return sum(value.nbytes for value in classifier.state_dict().values())
