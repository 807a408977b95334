"""Pictures of a training: learning curves, and the confusion matrix. PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gramlet.train.configuration import VALIDATION
from gramlet.train.types import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELLED_CLASSES = 40
"""With more classes than this, their names and counts would be too small to read."""


def learning_curves(outcomes: Sequence[Outcome]) -> bytes:
    """Loss and validation accuracy by epoch, one color a recipe; a dot marks the epoch that was kept."""
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
    losses.set(title="loss (dashed: training)", xlabel="epoch", ylim=(0, None))
    accuracies.set(title="validation accuracy", xlabel="epoch")
    losses.legend(fontsize="small", frameon=False)
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def confusion_matrix(outcome: Outcome) -> bytes:
    """Of the validation set. Rows: the true class; columns: what it was taken for; shaded by the share of the row."""
    report = next(report for report in outcome.reports if report.set == VALIDATION)
    labels = [item.label for item in report.classes]
    side = min(3.2 + 0.45 * len(labels), 14.0)
    figure = _figure(side, side)
    axes = figure.subplots()
    longest = max(map(len, labels)) if len(labels) <= _LABELLED_CLASSES else 0
    margin = min(0.6 + 0.08 * longest, 0.5 * side) / side
    figure.subplots_adjust(left=margin, bottom=margin, right=1 - 0.2 / side, top=1 - 0.45 / side)
    shares = [[count / max(1, sum(row)) for count in row] for row in report.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=f"{report.set}: {report.accuracy:.1%} of {report.pictures}", xlabel="taken for", ylabel="true class")
    if len(labels) <= _LABELLED_CLASSES:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        for i, row in enumerate(report.confusion):
            for j, count in enumerate(row):
                color = "white" if shares[i][j] > 0.5 else "0.3"
                axes.text(j, i, str(count) if count else "", ha="center", va="center", color=color)
    return _png(figure)


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
