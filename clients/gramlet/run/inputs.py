"""What people hand to `runs` and `run`, checked and turned into dataclasses."""

from __future__ import annotations

from gramlet.inputs.values import choose, fill, text
from gramlet.run.types import RunFilter, RunKind, RunRef, RunState
from gramlet.types import check_name


def make_filter(kind: RunKind | str | None, state: RunState | str | None, owner: str, page_size: int) -> RunFilter:
    """Which runs to list.

    Raises:
        InvalidInput: There is no such kind or state.
    """
    return fill(RunFilter, {"kind": kind, "state": state, "owner": owner, "page_size": page_size})


def make_ref(run_id: str, kind: RunKind | str | None) -> RunRef:
    """A run.

    Raises:
        InvalidInput: Not a valid id, or there is no such kind.
    """
    return RunRef(check_name(text(run_id, "run_id"), "run_id"), None if kind is None else choose(RunKind, kind, "kind"))
