"""The types of StylizeService: settings, events, and results."""

from gramlet.stylize.inputs import (
    StyleInput,
    StylizeOptions,
)
from gramlet.stylize.sets import (
    SetEvent,
)
from gramlet.stylize.types import (
    Adjusted,
    Checkpoint,
    Colors,
    Initial,
    Iteration,
    LineSearch,
    Optimizer,
    Preview,
    Queued,
    Recovered,
    RecoveryReason,
    Result,
    Started,
    StylizeEvent,
    StylizeSettings,
    StylizeStatus,
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepResult,
    SweepStarted,
)

__all__ = [
    "Adjusted",
    "Checkpoint",
    "Colors",
    "Initial",
    "Iteration",
    "LineSearch",
    "Optimizer",
    "Preview",
    "Queued",
    "Recovered",
    "RecoveryReason",
    "Result",
    "SetEvent",
    "Started",
    "StyleInput",
    "StylizeEvent",
    "StylizeOptions",
    "StylizeSettings",
    "StylizeStatus",
    "SweepCell",
    "SweepEvent",
    "SweepQueued",
    "SweepResult",
    "SweepStarted",
]
