"""The calls of StylizeService about single stylizations, as a part of the client; sweep.py has those about sweeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Unpack

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet.errors import GramletError
from gramlet.inputs.pictures import PictureInput, several_pictures
from gramlet.inputs.values import name_or_new, text
from gramlet.signatures import checks_calls
from gramlet.stylize.inputs import StyleInput, StylizeOptions, make_adjustment, make_stylization, make_template
from gramlet.stylize.optimizers import Comparison, OptimizerEvent, OptimizerInput, make_comparison
from gramlet.stylize.sessions import StylizeRun
from gramlet.stylize.sets import SetEvent, StylizeSet
from gramlet.stylize.types import Initial, Optimizer, Result, StylizeEvent, StylizeOrder, StylizeSettings
from gramlet.stylize.wire import ADJUST, STYLIZE, decode_adjusted, encode_adjust
from gramlet.transport.aio import aiter_of, blocking, one_reader
from gramlet.types import new_name


@checks_calls
class AsyncStylizeCalls(AsyncCalls):
    """Stylizations: running, resuming, changing and comparing them."""

    def stylize(
        self,
        content: PictureInput,
        style: StyleInput,
        *,
        initial: Initial | PictureInput | None = None,
        previous: PictureInput | None = None,
        preview_every: int = 0,
        preview_side: int = 0,
        state_seconds: float | None = None,
        run_id: str | None = None,
        detached: bool = False,
        keep_inputs: bool = False,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> AsyncStylizing:
        """Paints the content picture in the style of another (Gatys, Ecker, Bethge, CVPR 2016).

            async for step in client.stylize("tubingen.jpg", "starry_night.jpg", size=512):
                print(step.iteration, step.loss)
            step.image.save("out.png")

        Returns events as the optimization goes on, every iteration among them; the last is the `Result` with the
        picture. If the server is lost, the run is resumed from its last checkpoint, and the events go on as if nothing
        had happened. Closing the events cancels the run, unless it is detached.

        Args:
            content: The picture whose contents are kept.
            style: The style picture; or several; or several with their weights, `[("a.jpg", 2.0), ("b.jpg", 1.0)]`; or
                as `Style("a.jpg", content_region="sky.png")`, with masks: where in the result the style applies, and
                which part of the style picture counts.
            initial: Where to start: `content`, `style`, `noise`, or a picture. Default: the preset's choice.
            previous: In a sequence: the content of the frame before. `initial` is its painting, and is moved along with
                what moved since.
            preview_every: Iterations between previews; 0 is none.
            preview_side: The longest side of a preview in pixels; 0 is 512. Previews are not enlarged.
            state_seconds: Seconds between checkpoints; None is the server's choice, 0 none.
            run_id: Name of the run, with which it can be resumed. Default: a random one; every event has it.
            detached: The run goes on without its caller, even if its server is lost. It is ordered when the first event
                is asked for. Find it again with `client.run(run_id)`.
            keep_inputs: The store keeps the pictures after the run has ended, until it is deleted.
            timeout: Seconds for the whole run.
            settings: Preset, size, iterations, weights and all other fields of `StylizeSettings`.

        Raises:
            NotFound: A file does not exist.
            InvalidInput: A picture or setting is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """
        order = StylizeOrder(
            run_id=name_or_new(run_id, "run_id"),
            preview_every=preview_every,
            preview_side=preview_side,
            state_seconds=state_seconds,
            detached=detached,
            keep_inputs=keep_inputs,
            weights_digest=self._weights_digest,
        )

        def start() -> StylizeRun:
            return StylizeRun(replace(order, stylization=make_stylization(content, style, initial, settings, previous)))

        return self._stylize(order.run_id, blocking(start), timeout)

    def resume(
        self,
        run_id: str,
        *,
        preview_every: int = 0,
        preview_side: int = 0,
        state_seconds: float | None = None,
        detached: bool = False,
        timeout: float | None = None,
    ) -> AsyncStylizing:
        """Continues a stylization from its newest checkpoint.

        A run that is executed is joined instead, and one that has succeeded gives its result. With `detached` the run
        goes on without its callers from now on.

        Raises:
            NotFound: The server's store has no such run.
        """
        order = StylizeOrder(
            resume_run_id=run_id,
            preview_every=preview_every,
            preview_side=preview_side,
            state_seconds=state_seconds,
            detached=detached,
        )
        return self._stylize(text(run_id, "run_id"), blocking(StylizeRun, order), timeout)

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
        """Paints several pictures in one style, which is prepared once, or the frames of a sequence.

        Returns events as they come: a `SetEvent` for everything that happens to a picture. Pictures are taken, and
        painted, one after another, as the events are read. A picture that cannot be read fails alone: its error is the
        event's value. Closing the events cancels the picture under way.

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

        def start() -> StylizeSet:
            return StylizeSet(make_template(style, initial, settings), sequence, frame_iterations)

        self._connection.check_open()
        given = several_pictures(pictures, Iterable | AsyncIterable)
        return one_reader(self._set_events(aiter_of(given, "pictures"), blocking(start), preview_every, timeout))

    def compare_optimizers(
        self,
        content: PictureInput,
        style: StyleInput,
        *,
        optimizers: Iterable[OptimizerInput] = tuple(Optimizer),
        initial: Initial | PictureInput | None = None,
        timeout: float | None = None,
        **settings: Unpack[StylizeOptions],
    ) -> AsyncGenerator[OptimizerEvent, None]:
        """Makes one stylization by several optimizers, one after another, at one scale.

        Returns events as they come: an `OptimizerEvent` for everything that happens. A `LossCurve` collects the losses
        of an optimizer by evaluations and by seconds. Closing the events cancels the stylization under way.

            curves = {}
            async for step in client.compare_optimizers("a.jpg", "b.jpg", preset="classic", size=256, iterations=100):
                curves.setdefault(step.choice, gramlet.LossCurve(step.choice)).add(step.event)

        Args:
            content: The picture whose contents are kept.
            style: As of `stylize`.
            optimizers: Each by its name, or with its learning rate: `["lbfgs", "adam", ("gd", 0.01)]`. Default: all.
            initial: As of `stylize`.
            timeout: Seconds for each stylization.
            settings: As of `stylize`, except optimizer, learning rate and scales.

        Raises:
            NotFound: A file does not exist.
            InvalidInput: A picture, a setting or an optimizer is wrong.
            Overloaded: The service's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """

        def start() -> Comparison:
            return make_comparison(content, style, optimizers, initial, settings)

        self._connection.check_open()
        return one_reader(self._compared(blocking(start), timeout))

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
        """Changes the weights of a run from its next iteration on; its events report the change as `Adjusted`.

        None leaves a weight as it is, and so do stages that are not named; a stage of weight 0 is left out. The run may
        belong to another client, on another server that shares the store. A change that is not rejected is applied if
        the run goes on to its end.

        Returns:
            The settings that will be in force.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: The run is done, or has begun its last iteration.
            InvalidInput: A weight or a stage is wrong, or all weights would be 0.
        """
        adjustment = make_adjustment(content_weight, style_weight, total_variation_weight, style_stages)
        request = encode_adjust(text(run_id, "run_id"), adjustment)
        return decode_adjusted(await self._unary(ADJUST, request, timeout))

    def _stylize(self, run_id: str, start: Awaitable[StylizeRun], timeout: float | None) -> AsyncStylizing:
        return AsyncStylizing(self, run_id, self._events(STYLIZE, start, self._attempts(timeout)))

    async def _compared(
        self, start: Awaitable[Comparison], timeout: float | None
    ) -> AsyncGenerator[OptimizerEvent, None]:
        for choice, stylization in await start:
            name = new_name()
            order = StylizeOrder(stylization, run_id=name, weights_digest=self._weights_digest)
            async with self._stylize(name, blocking(StylizeRun, order), timeout) as events:
                async for event in events:
                    yield OptimizerEvent(choice, event)

    async def _set_events(
        self,
        pictures: AsyncIterator[PictureInput],
        start: Awaitable[StylizeSet],
        preview_every: int,
        timeout: float | None,
    ) -> AsyncGenerator[SetEvent, None]:
        painted = await start
        index = -1
        async for picture in pictures:
            index += 1
            try:
                name = new_name()
                run = blocking(_start, painted, picture, preview_every, name, self._weights_digest)
                async with AsyncEvents(name, self._events(STYLIZE, run, self._attempts(timeout)), Result) as events:
                    async for event in events:
                        painted.happened(event)
                        yield SetEvent(index, event)
            except GramletError as error:
                yield SetEvent(index, painted.failed(error))


@checks_calls
class AsyncStylizing(AsyncEvents[StylizeEvent, Result]):
    """The events of a stylization, whose weights can be changed meanwhile."""

    def __init__(self, client: AsyncStylizeCalls, run_id: str, events: AsyncGenerator[StylizeEvent, None]) -> None:
        super().__init__(run_id, events, Result)
        self._client = client

    async def adjust(
        self,
        *,
        content_weight: float | None = None,
        style_weight: float | None = None,
        total_variation_weight: float | None = None,
        style_stages: Mapping[str, float] | Sequence[str] | None = None,
    ) -> StylizeSettings:
        """Changes the weights from the next iteration on; see `AsyncClient.adjust`."""
        return await self._client.adjust(
            self.run_id,
            content_weight=content_weight,
            style_weight=style_weight,
            total_variation_weight=total_variation_weight,
            style_stages=style_stages,
        )


def _start(
    painted: StylizeSet, picture: PictureInput, preview_every: int, run_id: str, weights_digest: str
) -> StylizeRun:
    order = StylizeOrder(
        painted.stylization(picture), run_id=run_id, preview_every=preview_every, weights_digest=weights_digest
    )
    return StylizeRun(order)
