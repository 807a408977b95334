"""Goes on with detached runs whose process was lost or has shut down."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from gramlet.errors import Aborted, FailedPrecondition, GramletError, Overloaded, Unavailable
from gramlet.run.types import RunError, RunKind, RunState

from gramlet_server.runs.execution import Work
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.run import Run

_log = logging.getLogger(__name__)


def rescue_once(lifecycle: Lifecycle, kind: RunKind, prepare: Callable[[str], Work[Any]]) -> bool:
    """Takes over one abandoned run, if there is one that can go on here; whether it has.

    Args:
        lifecycle: Executes the run.
        kind: The kind of the runs.
        prepare: Takes a run over.
    """
    for run_id in lifecycle.records.abandoned(kind):
        if lifecycle.execution(kind, run_id) is not None:
            continue
        try:
            lifecycle.start_alone(partial(prepare, run_id))
        except (Overloaded, Unavailable, Aborted) as error:
            _log.info("run %s cannot be taken over now: %s", run_id, error)
        except FailedPrecondition as error:  # another replica may have the weights that the run needs
            _log.warning("run %s cannot go on here: %s", run_id, error)
        except GramletError as error:
            _fail(lifecycle, kind, run_id, error)
        else:
            _log.info("took over run %s", run_id)
            return True
    return False


def keep_rescuing(lifecycle: Lifecycle, kind: RunKind, prepare: Callable[[str], Work[Any]]) -> None:
    """Looks for abandoned runs until the server shuts down, in a thread of its own. Every replica does so."""

    def rescue() -> None:
        pause = lifecycle.records.lease_seconds / 3
        # The replicas look at different times, so that they seldom take over the same run.
        while not lifecycle.wait_for_draining(pause * random.uniform(0.5, 1.0)):
            try:
                rescue_once(lifecycle, kind, prepare)
            except GramletError as error:
                _log.warning("abandoned %s runs could not be looked for: %s", kind.value, error)
            except Exception:  # a bug must not end the rescue of all other runs
                _log.exception("abandoned %s runs could not be looked for", kind.value)

    threading.Thread(target=rescue, name=f"rescue-{kind.value}", daemon=True).start()


def _fail(lifecycle: Lifecycle, kind: RunKind, run_id: str, error: GramletError) -> None:
    """Records that a run cannot go on anywhere."""
    record = lifecycle.records.read(kind, run_id)
    if record is None:
        return
    failed = RunError(error.code.value, error.message, error.field)
    now = time.time()
    info = replace(record.info, state=RunState.FAILED, error=failed, updated=now, ended=now)
    lifecycle.records.write(Run.take_over(lifecycle.records.store, kind.value, run_id), replace(record, info=info))
    _log.warning("run %s cannot go on: %s", run_id, error)
