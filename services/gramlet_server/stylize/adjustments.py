"""Changes of weights to a run under way, recorded in the store so that any process that shares it may take them.

The adjustments of a run are numbered from 1, and its settings in force are those ordered with the first so many
adjustments applied: a checkpoint that tells how many needs nothing else to go on.

Before its last iteration a run takes the next number for an end, after which none is recorded. Of an adjustment and an
end at once, only one gets the number: what was recorded is heeded, and what would not be is refused.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Sequence

from gramlet.errors import AlreadyExists, FailedPrecondition, InvalidInput, Unavailable
from gramlet.feature.types import Model
from gramlet.stylize.types import Adjustment, StylizeSettings

from gramlet_server.runs.run import Run
from gramlet_server.stylize import presets

POLL_SECONDS = 1.0
"""How often a running stylization looks for adjustments that another process recorded."""

_LOG = "adjustments"
_END = b"end"

_log = logging.getLogger(__name__)


def adjusted(settings: StylizeSettings, adjustments: Sequence[Adjustment]) -> StylizeSettings:
    """The settings with adjustments applied, in order. Stages that an adjustment does not name keep their weights."""
    for adjustment in adjustments:
        given = {name: value for name, value in vars(adjustment).items() if value is not None}
        if adjustment.style_stages is not None:
            given["style_stages"] = {**(settings.style_stages or {}), **adjustment.style_stages}
        settings = dataclasses.replace(settings, **given)
    return settings


def record(run: Run, adjustment: Adjustment, ordered: StylizeSettings, model: Model) -> StylizeSettings:
    """Adds an adjustment to those of a run; returns the settings that will be in force.

    Args:
        run: The run, whoever owns it.
        adjustment: What to change.
        ordered: The run's settings before any adjustment.
        model: The network that the run uses.

    Raises:
        FailedPrecondition: The run has begun its last iteration.
        InvalidInput: The network has no such stage, or nothing would be left to minimize.
    """
    while True:
        earlier, ended = _read(run)
        if ended:
            raise FailedPrecondition(
                f"run {run.run_id} is done or in its last iteration: start another one, from its result if need be "
                "(initial)",
                field="run_id",
            )
        settings = adjusted(ordered, [*earlier, adjustment])
        _check(adjustment, settings, model)
        try:
            run.append(_LOG, len(earlier) + 1, json.dumps(vars(adjustment)).encode())
        except AlreadyExists:
            continue  # somebody else's came first: this one applies after it
        return settings


class Inbox:
    """The adjustments of a run, as the process that runs it sees them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._due = 0.0
        self._told = threading.Event()

    def tell(self) -> None:
        """There is a new one: no need to wait until the store is looked at again."""
        self._told.set()

    def after(self, heeded: int, last: bool = False) -> Sequence[Adjustment]:
        """The adjustments after the first `heeded`. The store is looked at once in POLL_SECONDS, or when told.

        Args:
            heeded: How many are in force.
            last: The run will not ask again where there are none: from then on, others are refused.

        Raises:
            Unavailable: The store failed when asked for the last time.
        """
        if last:
            return self._end(heeded)
        if not self._told.is_set() and time.monotonic() < self._due:
            return ()
        self._told.clear()
        self._due = time.monotonic() + POLL_SECONDS
        try:
            return _read(self._run, heeded)[0]
        except Unavailable as error:
            _log.warning("run %s: adjustments cannot be read now: %s", self._run.run_id, error)
            return ()

    def _end(self, heeded: int) -> Sequence[Adjustment]:
        try:
            self._run.append(_LOG, heeded + 1, _END)
        except AlreadyExists:  # an adjustment came before, or this is a resumed run whose end is recorded
            return _read(self._run, heeded)[0]
        return ()


def _read(run: Run, after: int = 0) -> tuple[list[Adjustment], bool]:
    """The adjustments after the first so many, and whether they are all that there will be."""
    entries = run.log(_LOG, after)
    return [Adjustment(**json.loads(data)) for data in entries if data != _END], _END in entries


def _check(adjustment: Adjustment, settings: StylizeSettings, model: Model) -> None:
    presets.check_stages(adjustment.style_stages or {}, "adjustment.style_stages", model)
    styled = settings.style_weight and any((settings.style_stages or {}).values())
    if not (styled or settings.content_weight or settings.total_variation_weight):
        raise InvalidInput("all weights would be 0: leave one", field="adjustment")
