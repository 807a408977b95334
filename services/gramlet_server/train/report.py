"""How well a head does: accuracy, precision and recall, confusion, calibration. NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gramlet.train.types import ClassReport, Report
from numpy.typing import NDArray

CALIBRATION_BINS = 15
TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature. Where the validation set is classified without a fault no finite one is best."""
TOP = (1, 2, 3, 5)
"""The k of top-k accuracy, as far as there are more classes than that."""

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """What is followed from epoch to epoch."""

    loss: float
    accuracy: float
    macro_f1: float


def metrics(logits: Floats, labels: Labels) -> Metrics:
    """Cross-entropy, accuracy and macro F1 of (N, classes) logits."""
    predicted = logits.argmax(axis=1)
    _, _, f1, support = _by_class(confusion(predicted, labels, logits.shape[1]))
    return Metrics(
        loss=cross_entropy(logits, labels),
        accuracy=float((predicted == labels).mean()),
        macro_f1=float(f1[support > 0].mean()),
    )


def report(name: str, classes: tuple[str, ...], logits: Floats, labels: Labels, temperature: float = 1.0) -> Report:
    """The report on one set.

    Args:
        name: Of the set.
        classes: In the order of the logits.
        logits: (N, classes), N ≥ 1.
        labels: (N,).
        temperature: The logits are divided by it.
    """
    scaled = logits / temperature
    probabilities = softmax(scaled)
    matrix = confusion(scaled.argmax(axis=1), labels, len(classes))
    precision, recall, f1, support = _by_class(matrix)
    # Rank of the right class: how many are more probable. Stable for ties, in favour of the lower index.
    order = np.argsort(-scaled, axis=1, kind="stable")
    rank = (order == labels[:, None]).argmax(axis=1)
    return Report(
        set=name,
        pictures=len(labels),
        loss=cross_entropy(scaled, labels),
        accuracy=float((rank == 0).mean()),
        top={k: float((rank < k).mean()) for k in TOP if k < len(classes) or k == 1},
        macro_f1=float(f1[support > 0].mean()),
        calibration_error=calibration_error(probabilities, labels),
        classes=tuple(
            ClassReport(label, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, label in enumerate(classes)
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix),
    )


def softmax(logits: Floats) -> Floats:
    """Probabilities, row by row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def cross_entropy(logits: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood of the labels."""
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((log_sum - logits[np.arange(len(labels)), labels]).mean())


def confusion(predicted: NDArray[Any], labels: Labels, classes: int) -> NDArray[np.int64]:
    """(classes, classes): row i counts what pictures of class i were taken for."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def calibration_error(probabilities: Floats, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Guo et al., ICML 2017): |accuracy - confidence|, averaged over bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    # Bins are open below and closed above, as in the paper.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def temperature(logits: Floats, labels: Labels) -> float:
    """The temperature that minimizes the cross-entropy (Guo et al., ICML 2017), within `TEMPERATURES`.

    The cross-entropy is convex in 1/T, so bisection by thirds finds its minimum.
    """
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(80):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if cross_entropy(logits * left, labels) <= cross_entropy(logits * right, labels):
            high = right
        else:
            low = left
    return 2 / (low + high)


def _by_class(matrix: NDArray[np.int64]) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Precision, recall, F1 and support; 0 where nothing was predicted or nothing is there."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return precision, recall, f1, support
