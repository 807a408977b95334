"""The calls of StylizeService about sweeps, as a part of the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet.inputs.pictures import PictureInput
from gramlet.inputs.values import name_or_new, several
from gramlet.signatures import checks_calls
from gramlet.stylize.inputs import StyleInput, StylizeOptions, make_stylization
from gramlet.stylize.sessions import SweepRun
from gramlet.stylize.sweep_types import SweepEvent, SweepOrder, SweepResult
from gramlet.stylize.sweep_wire import SWEEP
from gramlet.stylize.types import Initial
from gramlet.transport.aio import blocking


@checks_calls
class AsyncSweepCalls(AsyncCalls):
    """Sweeps over the settings of a stylization: running and resuming them."""

    def sweep(
        self,
        content: PictureInput,
        style: StyleInput,
        *,
        ratios: Sequence[float] = (),
        deepest_stages: Sequence[str] = (),
        initial: Initial | PictureInput | None = None,
        run_id: str | None = None,
        detached: bool = False,
        keep_inputs: bool = False,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> AsyncEvents[SweepEvent, SweepResult]:
        """Stylizes once for every ratio of content to style and every deepest style stage: a labeled grid of pictures.

        Returns events as they come: a `SweepCell` for everything that happens in a cell; the last is the `SweepResult`
        with the grid. If the server is lost, the sweep is resumed at its first unfinished cell. Closing the events
        cancels it, unless it is detached.

        Args:
            content: The picture whose contents are kept.
            style: As of `stylize`.
            ratios: Content weight / style weight of each column. Default: the settings' own times 0.1, 1 and 10.
            deepest_stages: Rows: each uses the style stages up to this one. Default: every style stage.
            initial: As of `stylize`.
            run_id: Name of the sweep, with which it can be resumed. Default: a random one; every event has it.
            detached, keep_inputs: As of `stylize`.
            timeout: Seconds for the whole sweep.
            settings: As of `stylize`, for every cell.

        Raises:
            NotFound: A file does not exist.
            InvalidInput: A picture, a setting, a ratio or a stage is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        name = name_or_new(run_id, "run_id")

        def start() -> SweepRun:
            return SweepRun(
                SweepOrder(
                    stylization=make_stylization(content, style, initial, settings),
                    ratios=tuple(several(ratios, "ratios")),
                    deepest_stages=tuple(several(deepest_stages, "deepest_stages")),
                    run_id=name,
                    detached=detached,
                    keep_inputs=keep_inputs,
                    weights_digest=self._weights_digest,
                )
            )

        return AsyncEvents(name, self._events(SWEEP, blocking(start), self._attempts(timeout)), SweepResult)

    def resume_sweep(
        self, run_id: str, *, detached: bool = False, timeout: float | None = None
    ) -> AsyncEvents[SweepEvent, SweepResult]:
        """Continues a sweep at its first unfinished cell; the results of the cells before it come again.

        As `resume`, it joins a sweep that is executed.

        Raises:
            NotFound: The server's store has no such sweep.
        """
        start = blocking(SweepRun, SweepOrder(resume_run_id=run_id, detached=detached))
        return AsyncEvents(run_id, self._events(SWEEP, start, self._attempts(timeout)), SweepResult)
