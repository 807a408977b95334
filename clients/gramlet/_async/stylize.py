"""The calls of StylizeService, as a part of the asynchronous client: `gramlet._sync.stylize` for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Unpack

from gramlet._async.inputs import aiter_of
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
from gramlet.transport.aio import AsyncCalls
from gramlet.transport.events import AsyncEvents
from gramlet.transport.retry import Attempts


class AsyncStylizeCalls(AsyncCalls):
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
    ) -> AsyncStylizing:
        """Paints the content picture in the style of another; an asynchronous iterator of events."""
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
    ) -> AsyncStylizing:
        """Goes on with a stylization from its newest checkpoint."""
        order = StylizeOrder(resume_run_id=run_id, preview_every=preview_every, checkpoint_every=checkpoint_every)
        return self._stylize(order, timeout)

    def stylize_set(
        self,
        pictures: Iterable[PictureInput] | AsyncIterable[PictureInput],
        style: StyleInput,
        *,
        sequence: bool = False,
        frame_iterations: int | None = None,
        initial: Initial | PictureInput | None = None,
        preview_every: int = 0,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> AsyncGenerator[SetEvent, None]:
        """Paints several pictures in one style, or the frames of a sequence; an asynchronous iterator of events."""
        painted = StylizeSet(make_template(style, initial, settings), sequence, frame_iterations)
        return self._set_events(aiter_of(pictures), painted, preview_every, timeout)

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
    ) -> AsyncEvents[SweepEvent, SweepResult]:
        """Stylizes once for every ratio of content to style and every deepest style stage: a labelled grid."""
        order = SweepOrder(
            stylization=make_stylization(content, style, initial, settings),
            ratios=tuple(map(float, ratios)),
            deepest_stages=tuple(deepest_stages),
            run_id=run_id or "",
        )
        return self._sweep(order, timeout)

    def resume_sweep(self, run_id: str, *, timeout: float | None = None) -> AsyncEvents[SweepEvent, SweepResult]:
        """Goes on with a sweep at its first unfinished cell; of those before it the results are told."""
        return self._sweep(SweepOrder(resume_run_id=run_id), timeout)

    async def adjust(
        self,
        run_id: str,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        total_variation_weight: float | None = None,
        style_stages: Mapping[str, float] | Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> StylizeSettings:
        """Changes the weights of a run from its next iteration on; returns the settings that will be in force."""
        adjustment = make_adjustment(content_weight, style_weight, total_variation_weight, style_stages)
        return decode_adjusted(await self._unary(self._stylize_stub.Adjust, encode_adjust(run_id, adjustment), timeout))

    def _stylize(self, order: StylizeOrder, timeout: float | None) -> AsyncStylizing:
        run = StylizeRun(order)
        events = self._run_events(self._stylize_stub.Stylize, run, self._attempts(timeout))
        return AsyncStylizing(self, run.run_id, events)

    def _sweep(self, order: SweepOrder, timeout: float | None) -> AsyncEvents[SweepEvent, SweepResult]:
        events = self._run_events(self._stylize_stub.Sweep, SweepRun(order), self._attempts(timeout))
        return AsyncEvents(events, SweepResult)

    async def _set_events(
        self, pictures: AsyncIterator[PictureInput], painted: StylizeSet, preview_every: int, timeout: float | None
    ) -> AsyncGenerator[SetEvent, None]:
        index = -1
        async for picture in pictures:
            index += 1
            try:
                stylization = await asyncio.to_thread(painted.stylization, picture)  # it reads a file
                async with self._stylize(StylizeOrder(stylization, preview_every=preview_every), timeout) as events:
                    async for event in events:
                        painted.happened(event)
                        yield SetEvent(index, event)
            except GramletError as error:
                yield SetEvent(index, painted.failed(error))

    async def _run_events(
        self, method: Any, run: StylizeRun | SweepRun, attempts: Attempts
    ) -> AsyncGenerator[Any, None]:
        while not run.done:
            stream = self._connection.server_stream(method, run.request(), attempts)
            try:
                while not run.done:
                    event = run.accept(await stream.receive())
                    attempts.answered(new=event is not None)
                    if run.done:
                        await stream.finish()  # so that the server sees a call that ended in order
                    if event is not None:
                        yield event
            except GramletError as error:
                delay = attempts.delay_after(run.broken(error))
            else:
                return
            finally:
                stream.close()
            await asyncio.sleep(delay)


class AsyncStylizing(AsyncEvents[StylizeEvent, Result]):
    """The events of a stylization, whose weights can be changed meanwhile. Attribute `run_id`: its name."""

    def __init__(self, client: AsyncStylizeCalls, run_id: str, events: AsyncGenerator[StylizeEvent, None]) -> None:
        super().__init__(events, Result)
        self._client = client
        self.run_id = run_id

    async def adjust(
        self,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        total_variation_weight: float | None = None,
        style_stages: Mapping[str, float] | Sequence[str] | None = None,
    ) -> StylizeSettings:
        """Changes the weights from the next iteration on; see `Client.adjust`."""
        return await self._client.adjust(
            self.run_id,
            content_weight=content_weight,
            style_weight=style_weight,
            total_variation_weight=total_variation_weight,
            style_stages=style_stages,
        )
