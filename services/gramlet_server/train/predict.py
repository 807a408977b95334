"""Prediction: from pictures to calibrated probabilities of a head's classes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from gramlet.errors import GramletError, InvalidInput
from gramlet.train.predictions import ClassProbability, Prediction, PredictOptions
from gramlet.train.types import Head, HeadRef
from gramlet.types import Array, Picture, Timing

from gramlet_server.backbone.architecture import architecture
from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature_source import FeatureSource, check_weights, pin_to
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.train.calibration import prediction_set
from gramlet_server.train.classifier import (
    BaseStages,
    Classifier,
    State,
    extraction,
    feature_of,
    restore,
)
from gramlet_server.train.heatmap import heat_map
from gramlet_server.train.memory import judging_bytes, late_bytes, loading_bytes
from gramlet_server.train.registry import Registry
from gramlet_server.train.typicality import typicality

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
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        PROCESS.on_shortage(self._forget)

    @property
    def cached_bytes(self) -> int:
        """Memory that the heads take."""
        return sum(loaded.bytes for loaded in self._loaded.values())

    def predict(
        self, ref: HeadRef, pictures: Sequence[Picture | GramletError], options: PredictOptions
    ) -> tuple[HeadRef, list[Prediction | GramletError]]:
        """The head that was used, and the most probable classes of each picture. A bad picture fails alone.

        Raises:
            InvalidInput: No pictures.
            NotFound: There is no such head.
            OtherWeights: The head was trained on another network than the one here, or than the wanted one.
            FailedPrecondition: The head needs weights that this process lacks.
        """
        if not pictures:
            raise InvalidInput("send at least one picture", field="pictures")
        head, content = self._registry.find(ref)
        known_as = f"head {head.name}/{head.version}"
        check_weights(options.weights_digest, head.weights_digest, of=f"{known_as} was made with weights")
        features, _ = pin_to(self._features, head.weights_digest, known_as, "head")
        loaded = self._load(head, content)
        outcomes: list[Prediction | GramletError] = []
        for start in range(0, len(pictures), BATCH):
            outcomes += self._batch(head, loaded, features, pictures[start : start + BATCH], start, options)
        return HeadRef(head.name, head.version), outcomes

    def _batch(
        self,
        head: Head,
        loaded: _Loaded,
        features: FeatureSource,
        pictures: Sequence[Picture | GramletError],
        start: int,
        options: PredictOptions,
    ) -> Iterator[Prediction | GramletError]:
        mapped = head.feature_stage if head.stages else architecture(head.backbone).stages[-2].name
        stages = dict.fromkeys([head.feature_stage, mapped] if options.heat_maps else [head.feature_stage])
        wanted = extraction(list(stages), head.size)
        extracted = features.extract([item for item in pictures if not isinstance(item, GramletError)], wanted)
        outcomes = [item if isinstance(item, GramletError) else next(extracted) for item in pictures]
        inputs = [feature_of(item, head.feature_stage) for item in outcomes if not isinstance(item, GramletError)]
        set_single_threaded(loaded.classifier.late is None)
        judging = judging_bytes(len(inputs), architecture(head.backbone), head)
        with PROCESS.reserve(judging, "pictures"):
            found = iter(loaded.judge(np.stack(inputs)) if inputs else ())
        for number, outcome in enumerate(outcomes, start):
            if isinstance(outcome, GramletError):
                outcome.field = f"pictures[{number}]"
                yield outcome
            else:
                seen = outcome.activations[mapped] if options.heat_maps else None
                yield _prediction(head, loaded, options, *next(found), seen, outcome.timing)

    def _forget(self) -> None:
        """Drops the heads that no call uses."""
        with self._lock:
            self._loaded.clear()

    def _load(self, head: Head, content: str) -> _Loaded:
        with self._lock:
            if content in self._loaded:
                self._loaded.move_to_end(content)
                return self._loaded[content]
        base = self._base.weights(head.weights_digest).state if head.stages else {}
        with PROCESS.reserve(loading_bytes(head.bytes, late_bytes(base, head.stages)), "head") as room:
            weights = self._registry.weights(head.name, content)
            loaded = _Loaded(restore(head, weights, self._base), weights.evidence)
            room.resize(loaded.bytes)
            room.move_to(loaded)
        with self._lock:
            self._loaded[content] = loaded
            while len(self._loaded) > 1 and self.cached_bytes > self._cache_bytes:
                self._loaded.popitem(last=False)
        return loaded


@dataclass(frozen=True)
class _Loaded:
    """A head in memory, with what its prediction sets and typicality are computed from."""

    classifier: Classifier
    evidence: State

    @property
    def scores(self) -> Array:
        """Sorted conformal scores."""
        result: Array = self.evidence["scores"].numpy()
        return result

    def judge(self, inputs: Array) -> Iterator[tuple[Array, float]]:
        """Probabilities (classes,) and typicality of each input of a batch."""
        return zip(self.classifier.probabilities(inputs), typicality(self.evidence, inputs).tolist(), strict=True)

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        tensors = [*self.classifier.state_dict().values(), *self.evidence.values()]
        return sum(value.nbytes for value in tensors)


def _prediction(
    head: Head,
    loaded: _Loaded,
    options: PredictOptions,
    probabilities: Array,
    typical: float,
    activations: Array | None,
    timing: Timing,
) -> Prediction:
    """The prediction of a head for one picture, with a heat map if its activations are given."""
    plausible = prediction_set(probabilities, loaded.scores, options.coverage)
    classes = _top(head.classes, probabilities, len(head.classes))
    shown = None
    if activations is not None:
        shown = heat_map(loaded.classifier, activations, int(probabilities.argmax()))
    return Prediction(
        classes[: options.top_k],
        timing,
        tuple(item.label for item in classes if plausible[head.classes.index(item.label)]),
        float(typical),
        shown,
        head.weights_digest,
    )


def _top(classes: Sequence[str], probabilities: Array, k: int) -> tuple[ClassProbability, ...]:
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(ClassProbability(classes[i], float(probabilities[i])) for i in order)
