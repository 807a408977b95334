"""The calls of StylizeService, as a part of the synchronous client. `gramlet._async.stylize` is its twin."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Unpack

from gramlet.errors import GramletError
from gramlet.inputs import PictureInput
from gramlet.stylize.inputs import StyleInput, StylizeOptions, make_adjustment, make_stylization, make_template
from gramlet.stylize.sessions import StylizeRun, SweepRun
from gramlet.stylize.sets import SetEvent, StylizeSet
from gramlet.stylize.types import (
    Initial,
    Result,
    StylizeEvent,
    StylizeOrder,
    StylizeSettings,
    SweepEvent,
    SweepOrder,
    SweepResult,
)
from gramlet.stylize.v1 import stylize_pb2_grpc
from gramlet.stylize.wire import decode_adjusted, encode_adjust
from gramlet.transport.events import Events
from gramlet.transport.retry import Attempts
from gramlet.transport.sync import Calls


class StylizeCalls(Calls):
    """Stylizations: running, resuming and changing them, and sweeping over their settings."""

    @property
    def _stylize_stub(self) -> stylize_pb2_grpc.StylizeServiceStub:
        return stylize_pb2_grpc.StylizeServiceStub(self._connection.channel)

    def stylize(
        self,
        content: PictureInput,
        style: StyleInput,
        *,
        initial: Initial | PictureInput | None = None,
        previous: PictureInput | None = None,
        preview_every: int = 0,
        checkpoint_every: int | None = None,
        run_id: str | None = None,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> Stylizing:
        """Paints the content picture in the style of another (Gatys, Ecker, Bethge, CVPR 2016).

        Returns events as the optimisation goes on, every iteration among them; the last is the `Result` with the
        picture. If the server is lost, the run is resumed from its last checkpoint, and the events go on as if nothing
        had happened. Leaving the loop cancels the run.

        Args:
            content: The picture whose contents are kept.
            style: The style picture; or several; or several with their weights, `[("a.jpg", 2.0), ("b.jpg", 1.0)]`; or
                as `Style("a.jpg", content_region="sky.png")`, with masks of where it rules and of what of it counts.
            initial: Where to start: `content`, `style`, `noise`, or a picture. Default: the preset's choice.
            previous: Of a sequence: the content of the frame before, of which `initial` is the painting, which is moved
                along with what moved since.
            preview_every: Iterations between previews; 0 is none.
            checkpoint_every: Iterations between checkpoints; None is the server's choice.
            run_id: Name of the run, with which it can be resumed. Default: a random one, told by every event.
            timeout: Seconds for the whole run.
            settings: Preset, size, iterations, weights and all other fields of `StylizeSettings`.

        Raises:
            NotFound: A file does not exist.
            InvalidInput: A picture or setting is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        order = StylizeOrder(
            stylization=make_stylization(content, style, initial, settings, previous),
            run_id=run_id or "",
            preview_every=preview_every,
            checkpoint_every=checkpoint_every,
        )
        return self._stylize(order, timeout)

    def resume(
        self,
        run_id: str,
        *,
        preview_every: int = 0,
        checkpoint_every: int | None = None,
        timeout: float | None = None,
    ) -> Stylizing:
        """Goes on with a stylization from its newest checkpoint.

        Raises:
            NotFound: The server's store has no such run.
        """
        order = StylizeOrder(resume_run_id=run_id, preview_every=preview_every, checkpoint_every=checkpoint_every)
        return self._stylize(order, timeout)

    def stylize_set(
        self,
        pictures: Iterable[PictureInput],
        style: StyleInput,
        *,
        sequence: bool = False,
        frame_iterations: int | None = None,
        initial: Initial | PictureInput | None = None,
        preview_every: int = 0,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> Generator[SetEvent, None, None]:
        """Paints several pictures in one style, which is prepared once, or the frames of a sequence.

        Returns events as they come: a `SetEvent` for whatever happens to a picture. Pictures are taken, and painted,
        one after another, as the events are read. A picture that is none fails alone: its error is the event's value.
        Leaving the loop cancels the picture under way.

        Args:
            pictures: Any number.
            style: As of `stylize`.
            sequence: The pictures are frames: each starts from the last result, at the full size only, with fewer
                iterations, so that the strokes flicker less.
            frame_iterations: Iterations of every frame after the first. Default: a quarter of the first one's.
            initial: As of `stylize`; of a sequence, for the first frame.
            preview_every: Iterations between previews; 0 is none.
            timeout: Seconds for each picture.
            settings: As of `stylize`, for every picture.

        Raises:
            InvalidInput, NotFound: A style or a setting is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        painted = StylizeSet(make_template(style, initial, settings), sequence, frame_iterations)
        return self._set_events(pictures, painted, preview_every, timeout)

    def sweep(
        self,
        content: PictureInput,
        style: StyleInput,
        *,
        ratios: Sequence[float] = (),
        deepest_stages: Sequence[str] = (),
        initial: Initial | PictureInput | None = None,
        run_id: str | None = None,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> Events[SweepEvent, SweepResult]:
        """Stylizes once for every ratio of content to style and every deepest style stage: a labelled grid of pictures.

        Returns events as they come: a `SweepCell` for whatever happens in a cell; the last is the `SweepResult` with
        the grid. If the server is lost, the sweep is resumed at its first unfinished cell. Leaving the loop cancels it.

        Args:
            content: The picture whose contents are kept.
            style: As of `stylize`.
            ratios: Content weight / style weight of each column. Default: the settings' own times 0.1, 1 and 10.
            deepest_stages: Rows: each uses the style stages up to this one. Default: every style stage.
            initial: As of `stylize`.
            run_id: Name of the sweep, with which it can be resumed. Default: a random one, told by every event.
            timeout: Seconds for the whole sweep.
            settings: As of `stylize`, for every cell.

        Raises:
            NotFound: A file does not exist.
            InvalidInput: A picture, a setting, a ratio or a stage is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        order = SweepOrder(
            stylization=make_stylization(content, style, initial, settings),
            ratios=tuple(map(float, ratios)),
            deepest_stages=tuple(deepest_stages),
            run_id=run_id or "",
        )
        return self._sweep(order, timeout)

    def resume_sweep(self, run_id: str, *, timeout: float | None = None) -> Events[SweepEvent, SweepResult]:
        """Goes on with a sweep at its first unfinished cell; of those before it the results are told.

        Raises:
            NotFound: The server's store has no such sweep.
        """
        return self._sweep(SweepOrder(resume_run_id=run_id), timeout)

    def adjust(
        self,
        run_id: str,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        total_variation_weight: float | None = None,
        style_stages: Mapping[str, float] | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StylizeSettings:
        """Changes the weights of a run from its next iteration on; its events tell it as `Adjusted`.

        What is None stays, and so do stages that are not named; a stage of weight 0 is left out. The run may be another
        client's, on another server that shares the store. A change that is not refused is heeded, if the run goes on to
        its end.

        Returns:
            The settings that will be in force.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: The run is done, or has begun its last iteration.
            InvalidInput: A weight or a stage is wrong, or all weights would be 0.
        """
        adjustment = make_adjustment(content_weight, style_weight, total_variation_weight, style_stages)
        return decode_adjusted(self._unary(self._stylize_stub.Adjust, encode_adjust(run_id, adjustment), timeout))

    def _stylize(self, order: StylizeOrder, timeout: float | None) -> Stylizing:
        run = StylizeRun(order)
        events = self._run_events(self._stylize_stub.Stylize, run, self._attempts(timeout))
        return Stylizing(self, run.run_id, events)

    def _sweep(self, order: SweepOrder, timeout: float | None) -> Events[SweepEvent, SweepResult]:
        events = self._run_events(self._stylize_stub.Sweep, SweepRun(order), self._attempts(timeout))
        return Events(events, SweepResult)

    def _set_events(
        self, pictures: Iterable[PictureInput], painted: StylizeSet, preview_every: int, timeout: float | None
    ) -> Generator[SetEvent, None, None]:
        for index, picture in enumerate(pictures):
            try:
                order = StylizeOrder(painted.stylization(picture), preview_every=preview_every)
                with self._stylize(order, timeout) as events:
                    for event in events:
                        painted.happened(event)
                        yield SetEvent(index, event)
            except GramletError as error:
                yield SetEvent(index, painted.failed(error))

    def _run_events(self, method: Any, run: StylizeRun | SweepRun, attempts: Attempts) -> Generator[Any, None, None]:
        while not run.done:
            try:
                with closing(self._connection.server_stream(method, run.request(), attempts)) as stream:
                    while not run.done:
                        event = run.accept(stream.receive())
                        attempts.answered(new=event is not None)
                        if run.done:
                            stream.finish()  # so that the server sees a call that ended in order
                        if event is not None:
                            yield event
            except GramletError as error:
                delay = attempts.delay_after(run.broken(error))
            else:
                return
            time.sleep(delay)


class Stylizing(Events[StylizeEvent, Result]):
    """The events of a stylization, whose weights can be changed meanwhile. Attribute `run_id`: its name."""

    def __init__(self, client: StylizeCalls, run_id: str, events: Generator[StylizeEvent, None, None]) -> None:
        super().__init__(events, Result)
        self._client = client
        self.run_id = run_id

    def adjust(
        self,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        total_variation_weight: float | None = None,
        style_stages: Mapping[str, float] | Sequence[str] | None = None,
    ) -> StylizeSettings:
        """Changes the weights from the next iteration on; see `Client.adjust`."""
        return self._client.adjust(
            self.run_id,
            content_weight=content_weight,
            style_weight=style_weight,
            total_variation_weight=total_variation_weight,
            style_stages=style_stages,
        )
