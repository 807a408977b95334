"""The types of StylizeService: settings, events, and results."""

from gramlet.stylize.inputs import (
    StyleInput,
    StylizeOptions,
)
from gramlet.stylize.sets import (
    SetEvent,
)
from gramlet.stylize.sweep_types import (
    SweepCell,
    SweepEvent,
    SweepQueued,
    SweepRemoteProgress,
    SweepResult,
    SweepStarted,
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
    RemoteProgress,
    Result,
    ScaleStarted,
    Started,
    StylizeEvent,
    StylizeSettings,
    StylizeStatus,
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
    "RemoteProgress",
    "Result",
    "ScaleStarted",
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
    "SweepRemoteProgress",
    "SweepResult",
    "SweepStarted",
]
