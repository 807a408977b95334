"""The types of RunService: runs, their states, progress and results."""

from gramlet.run.types import Progress, RunDetails, RunError, RunInfo, RunKind, RunPage, RunResult, RunState

__all__ = ["Progress", "RunDetails", "RunError", "RunInfo", "RunKind", "RunPage", "RunResult", "RunState"]
