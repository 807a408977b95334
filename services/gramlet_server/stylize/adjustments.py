"""Adjustments: new weights for a run under way, recorded in the store, where the process that executes it reads them.

The adjustments of a run are numbered from 1. Each is recorded together with those before it, so the settings in force
are the ordered ones with the last entry applied, and to add one takes as long however many there are.

Before its last iteration the run appends an end to its log, under the next number; no adjustment can follow it. The
store gives each number only once. So an adjustment that comes at the same moment is either recorded before the end,
and applied, or rejected.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gramlet.errors import AlreadyExists, FailedPrecondition, InvalidInput, Unavailable
from gramlet.feature.descent_types import DescentWeights
from gramlet.feature.types import Model
from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import Adjustment, StylizeSettings

from gramlet_server.runs.run import Run
from gramlet_server.stylize.presets import check_stages

MOST = 1000
"""Adjustments of a run. Each stays in the store as long as the run."""
POLL_SECONDS = 1.0
"""A running stylization looks this often for adjustments that other processes recorded."""

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


def weights(number: int, settings: StylizeSettings) -> DescentWeights:
    """The weights of complete settings, which contain so many adjustments, for a descent under way."""
    return DescentWeights(
        number=number,
        content_weight=settings.content_weight or 0.0,
        style_weight=settings.style_weight or 0.0,
        total_variation_weight=settings.total_variation_weight or 0.0,
        style_stages=settings.style_stages or {},
    )


def record(run: Run, adjustment: Adjustment, ordered: StylizeSettings, model: Model) -> StylizeSettings:
    """Adds an adjustment to those of a run.

    Args:
        run: The run. This process need not own it.
        adjustment: The new weights.
        ordered: The run's settings before any adjustment.
        model: The network of the run.

    Returns:
        The settings that will be in force.

    Raises:
        FailedPrecondition: The run has begun its last iteration, or was adjusted MOST times.
        InvalidInput: The network has no such stage, or all weights would be 0.
    """
    while True:
        number, data = run.last(_LOG)
        if data == _END:
            raise FailedPrecondition(
                f"run {run.run_id} is done or in its last iteration: start another one, from its result if need be "
                "(initial)",
                field="run_id",
            )
        if number >= MOST:
            raise FailedPrecondition(f"run {run.run_id} was adjusted {MOST:,} times, the most", field="run_id")
        with run.intact(_LOG):
            together = _merged(from_json(Adjustment, data), adjustment) if data else adjustment
        settings = adjusted(ordered, [together])
        _check(adjustment, settings, model)
        try:
            run.append(_LOG, number + 1, to_json(together))
        except AlreadyExists:
            continue  # another adjustment took the number: this one applies after it
        return settings


@dataclass(eq=False)
class Inbox:
    """The adjustments of a run, as the process that executes it reads them."""

    run: Run
    _due: float = field(default=0.0, init=False)
    _notified: threading.Event = field(default_factory=threading.Event, init=False)

    def notify(self) -> None:
        """There is a new adjustment: `after` reads the store at its next call."""
        self._notified.set()

    def after(self, applied: int, last: bool = False) -> Sequence[Adjustment]:
        """The adjustments after the first `applied` ones. Reads the store once in POLL_SECONDS, or when notified.

        Args:
            applied: How many are in force.
            last: The next iteration is the last one. If there are no adjustments, later ones are rejected.

        Raises:
            Unavailable: The store failed, and `last` is true.
        """
        if last:
            return self._end(applied)
        if not self._notified.is_set() and time.monotonic() < self._due:
            return ()
        self._notified.clear()
        self._due = time.monotonic() + POLL_SECONDS
        try:
            return _read(self.run, applied)[0]
        except Unavailable as error:
            _log.warning("run %s: adjustments cannot be read now: %s", self.run.run_id, error)
            return ()

    def _end(self, applied: int) -> Sequence[Adjustment]:
        try:
            self.run.append(_LOG, applied + 1, _END)
        except AlreadyExists:  # an adjustment came before, or this is a resumed run whose end was recorded
            return _read(self.run, applied)[0]
        return ()


def _merged(earlier: Adjustment, later: Adjustment) -> Adjustment:
    """One adjustment with the effect of two."""
    given = {name: value for name, value in vars(later).items() if value is not None}
    if later.style_stages is not None:
        given["style_stages"] = {**(earlier.style_stages or {}), **later.style_stages}
    return dataclasses.replace(earlier, **given)


def _read(run: Run, after: int = 0) -> tuple[list[Adjustment], bool]:
    """The adjustments after the first so many, and whether the end is recorded."""
    entries = run.log(_LOG, after)
    with run.intact(_LOG):
        return [from_json(Adjustment, data) for data in entries if data != _END], _END in entries


def _check(adjustment: Adjustment, settings: StylizeSettings, model: Model) -> None:
    check_stages(adjustment.style_stages or {}, "adjustment.style_stages", model)
    styled = settings.style_weight and any((settings.style_stages or {}).values())
    if not (styled or settings.content_weight or settings.total_variation_weight):
        raise InvalidInput("all weights would be 0: leave one", field="adjustment")
