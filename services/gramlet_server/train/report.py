"""How well a head does, in numbers (NumPy, float64) and in drawings (PNG files)."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from gramlet.train.configuration import OUT_OF_FOLD
from gramlet.train.types import ClassReport, Outcome, Report
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from gramlet_server.pictures import text
from gramlet_server.train.arrays import Floats, Labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")
_log = logging.getLogger(__name__)

CALIBRATION_BINS = 15
CONFIDENCE = 0.95
"""Of the interval around an accuracy."""
TOP = (1, 2, 3, 5)
"""The k of top-k accuracy; those above the number of classes are left out."""

_LABEL_SIZE = 13
_LABELLED_CLASSES = 40
"""With more classes than this, their names and counts would be too small to read in the drawing."""


@dataclass(frozen=True)
class Metrics:
    """The out-of-fold metrics of an epoch. Accuracy and F1 are between 0 and 1."""

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


def report(name: str, classes: tuple[str, ...], logits: Floats, labels: Labels) -> Report:
    """The report on one set.

    Args:
        name: Name of the set.
        classes: In the order of the logits.
        logits: (N, classes), N ≥ 1, calibrated.
        labels: (N,).
    """
    probabilities = softmax(logits)
    matrix = confusion(logits.argmax(axis=1), labels, len(classes))
    precision, recall, f1, support = _by_class(matrix)
    # Rank of the right class: how many classes are more probable. Of equal logits the lower index counts as more.
    order = np.argsort(-logits, axis=1, kind="stable")
    rank = (order == labels[:, None]).argmax(axis=1)
    low, high = interval(int((rank == 0).sum()), len(labels))
    return Report(
        set=name,
        pictures=len(labels),
        loss=cross_entropy(logits, labels),
        accuracy=float((rank == 0).mean()),
        accuracy_low=low,
        accuracy_high=high,
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


def losses(logits: Floats, labels: Labels) -> Floats:
    """(N,) negative log-likelihood of each label."""
    top = logits.max(axis=1)
    result: Floats = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return result


def cross_entropy(logits: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood of the labels."""
    return float(losses(logits, labels).mean())


def interval(right: int, pictures: int) -> tuple[float, float]:
    """The Wilson score interval of a share, for `CONFIDENCE`; (0, 1) for no pictures."""
    if not pictures:
        return 0.0, 1.0
    found = stats.binomtest(right, pictures).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def confusion(predicted: NDArray[Any], labels: Labels, classes: int) -> Labels:
    """(classes, classes): row i counts the predictions for pictures of class i."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def calibration_error(probabilities: Floats, labels: Labels, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Guo et al., ICML 2017): |accuracy - confidence|, averaged over bins of confidence."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    # Bins are open below and closed above, as in the paper.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _by_class(matrix: Labels) -> tuple[Floats, Floats, Floats, Labels]:
    """Precision, recall, F1 and support; 0 for a class that was never predicted or has no pictures."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(predicted + support, 1)
    return precision, recall, f1, support


# Drawings


def _or_the_reason(draw: Callable[[T], bytes]) -> Callable[[T], bytes]:
    """A drawing that fails becomes a picture of the reason: a report is read, whatever its drawings do."""

    @wraps(draw)
    def drawn(subject: T) -> bytes:
        try:
            return draw(subject)
        except Exception as error:
            _log.warning("%s failed", draw.__name__, exc_info=True)
            sheet = Image.new("RGB", (900, 60), "white")
            text.draw(sheet, (10, 15), text.shortened(f"This could not be drawn: {error}", 16, 880), 16)
            data = io.BytesIO()
            sheet.save(data, "PNG")
            return data.getvalue()

    return drawn


@_or_the_reason
def learning_curves(outcomes: Sequence[Outcome]) -> bytes:
    """A PNG of loss and out-of-fold accuracy by epoch: one color for each recipe, a dot at the epoch that was kept."""
    figure = _figure(9.6, 3.8)
    losses, accuracies = figure.subplots(1, 2)
    # Fixed margins: matplotlib's layout engine takes longer than the training of a head.
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.13, top=0.9, wspace=0.16)
    for number, outcome in enumerate(outcomes):
        color, epochs = f"C{number}", [epoch.epoch for epoch in outcome.history]
        losses.plot(epochs, [epoch.loss for epoch in outcome.history], color=color, linestyle="--", alpha=0.6)
        losses.plot(
            epochs, [epoch.validation_loss for epoch in outcome.history], color=color, label=outcome.recipe.title
        )
        accuracies.plot(epochs, [epoch.accuracy for epoch in outcome.history], color=color)
        best = next((epoch for epoch in outcome.history if epoch.epoch == outcome.best_epoch), None)
        if best:
            losses.plot(best.epoch, best.validation_loss, "o", color=color)
            accuracies.plot(best.epoch, best.accuracy, "o", color=color)
    losses.set(title="out-of-fold loss (dashed: training)", xlabel="epoch", ylim=(0, None))
    accuracies.set(title="out-of-fold accuracy", xlabel="epoch")
    losses.legend(fontsize="small", frameon=False)
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


@_or_the_reason
def confusion_matrix(outcome: Outcome) -> bytes:
    """A PNG of the confusion matrix out-of-fold. Rows are true classes, shaded by share of the row."""
    found = next(found for found in outcome.reports if found.set == OUT_OF_FOLD)
    labels = [text.shortened(item.label, _LABEL_SIZE, 320) for item in found.classes]
    if len(labels) > _LABELLED_CLASSES:
        labels = []
    side = min(3.2 + 0.45 * len(found.classes), 14.0)
    figure = _figure(side, side)
    axes = figure.subplots()
    longest = max((text.width(label, _LABEL_SIZE) for label in labels), default=0) / figure.dpi
    margin = min(0.6 + longest, 0.5 * side) / side
    figure.subplots_adjust(left=margin, bottom=margin, right=1 - 0.2 / side, top=1 - 0.45 / side)
    shares = [[count / max(1, sum(row)) for count in row] for row in found.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    unnamed = "" if labels else f" ({len(found.classes)} classes, too many to name here)"
    axes.set_title(f"out-of-fold: {found.accuracy:.1%} of {found.pictures}", parse_math=False)
    axes.set(xlabel=f"predicted class{unnamed}", ylabel=f"true class{unnamed}")
    if labels:
        axes.set_xticks(range(len(labels)), [""] * len(labels))
        axes.set_yticks(range(len(labels)), [""] * len(labels))
        axes.xaxis.labelpad = axes.yaxis.labelpad = longest * 72
        for number, label in enumerate(labels):
            _name_class(axes, number, label)
        for i, row in enumerate(found.confusion):
            for j, count in enumerate(row):
                color = "white" if shares[i][j] > 0.5 else "0.3"
                axes.text(j, i, str(count) if count else "", ha="center", va="center", color=color)
    return _png(figure)


def _name_class(axes: Axes, number: int, label: str) -> None:
    """Writes the name of a class beside its row and, turned by 45°, below its column."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    line = text.render(label, _LABEL_SIZE, "#222222")
    turned = line.rotate(45, expand=True, resample=Image.Resampling.BICUBIC)
    for picture, point, away, alignment in (
        (line, (0, number), (-8, 0), (1, 0.5)),
        (turned, (number, 0), (line.height / 4, -8), (1, 1)),
    ):
        axes.add_artist(
            AnnotationBbox(
                OffsetImage(np.asarray(picture), dpi_cor=False),
                point,
                away,
                xycoords=("axes fraction", "data") if picture is line else ("data", "axes fraction"),
                boxcoords="offset pixels",
                box_alignment=alignment,
                frameon=False,
                pad=0,
                annotation_clip=False,
            )
        )


def _figure(width: float, height: float) -> Figure:
    # Figure without pyplot: no global state, so several calls may draw at once.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
