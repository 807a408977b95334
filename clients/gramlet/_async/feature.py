"""The calls of FeatureService, as a part of the client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Self, TypeVar, Unpack, overload

from gramlet._async.calls import AsyncCalls, AsyncEvents
from gramlet._async.descent import AsyncDescent
from gramlet.errors import GramletError
from gramlet.feature.descent_session import DescentSession
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.inputs import ExtractionOptions, make_extraction, read_descent_start, read_objective, read_point
from gramlet.feature.objective_wire import DIFFERENTIATE
from gramlet.feature.see_inputs import SeenInput, SeeOptions, make_see_start, read_seen
from gramlet.feature.see_session import SeeCall
from gramlet.feature.see_types import SeeEvent, SeeResult
from gramlet.feature.see_wire import SEE
from gramlet.feature.sessions import CorpusWindow, DifferentiationState
from gramlet.feature.types import Evaluation, Extraction, Features, Model, Objective
from gramlet.feature.wire import (
    EXTRACT,
    EXTRACT_STREAM,
    GET_MODEL,
    decode_extract_response,
    decode_model,
    encode_extract_request,
    encode_get_model,
)
from gramlet.inputs.pictures import PictureInput, is_one_picture, read_picture, several_pictures
from gramlet.inputs.values import checked, choose
from gramlet.signatures import checks_calls
from gramlet.tensor.parts import Joiner, split
from gramlet.transport.aio import AsyncConnection, AsyncStream, aiter_of, blocking, one_reader
from gramlet.transport.connection import Alone, Attempts, CallContext, OfOneProcess
from gramlet.transport.rpc import Message
from gramlet.types import Array, ElementType

T = TypeVar("T")
O = TypeVar("O", Extraction, DescentStart)  # noqa: E741  # what one network is to do


@checks_calls
class AsyncFeatureCalls(AsyncCalls):
    """The network: its features of pictures, and the gradients of losses."""

    async def model(self, *, timeout: float | None = None) -> Model:
        """The network being served: its stages, weights digest, device, limits and load.

        Raises:
            OtherWeights: The client wants a network that no server has.
        """
        return decode_model(await self._unary(GET_MODEL, encode_get_model(self._weights_digest), timeout))

    @overload
    def features(  # type: ignore[overload-overlap]  # a path is also an iterable of strings, but one picture
        self, pictures: PictureInput, *, timeout: float | None = None, **what: Unpack[ExtractionOptions]
    ) -> Awaitable[Features]: ...

    @overload
    def features(
        self,
        pictures: Iterable[PictureInput] | AsyncIterable[PictureInput],
        *,
        timeout: float | None = None,
        **what: Unpack[ExtractionOptions],
    ) -> AsyncIterator[Features | GramletError]: ...

    def features(
        self,
        pictures: PictureInput | Iterable[PictureInput] | AsyncIterable[PictureInput],
        *,
        timeout: float | None = None,
        **what: Unpack[ExtractionOptions],
    ) -> Awaitable[Features] | AsyncIterator[Features | GramletError]:
        """Features of one picture, or of many.

            features = await client.features("a.jpg", stages=["layer1"], gram=True)
            features.grams["layer1"]
            async for outcome in client.features(["a.jpg", "b.jpg"], stages=["layer1"], gram=True): ...

        Args:
            pictures: One picture gives its `Features`. Many, in an iterable of any length, give an iterator of one
                outcome for each picture in the same order: `Features`, or as a value the error of a picture that could
                not be read. Pictures are taken while the outcomes are read, a few ahead.
            timeout: Seconds for the whole call.
            what: `stages` (required), `activations`, `gram`, `pooled` and the other `ExtractionOptions`.

        Raises:
            InvalidInput: The one picture is not a picture, or a stage is unknown.
            NotFound: The file of the one picture does not exist.
        """
        extraction = self._pinned(make_extraction(**what))
        if is_one_picture(pictures) or not isinstance(pictures, Iterable | AsyncIterable):
            return self._extract(pictures, extraction, timeout)  # type: ignore[arg-type]  # just found to be one
        return self.extract(pictures, extraction, timeout=timeout)  # type: ignore[arg-type]  # just found to be many

    def extract(
        self,
        pictures: Iterable[PictureInput] | AsyncIterable[PictureInput],
        extraction: Extraction,
        *,
        in_flight: int = 256,
        timeout: float | None = None,
    ) -> AsyncIterator[Features | GramletError]:
        """Features of many pictures, as `features` gives them, with the extraction as one value.

        Args:
            pictures: Any number.
            extraction: What to extract from each.
            in_flight: Most pictures under way at once. Fewer are, while they come slowly or are large.
            timeout: Seconds for the whole call.
        """
        window = CorpusWindow(self._pinned(checked(Extraction, extraction, "extraction")), in_flight)
        given = several_pictures(pictures, Iterable | AsyncIterable)
        outcomes = self._outcomes(EXTRACT_STREAM, window, aiter_of(given, "pictures"), self._attempts(timeout))
        return one_reader(outcomes)

    def differentiate(
        self,
        objective: Objective,
        *,
        element_type: ElementType | str = ElementType.FLOAT32,
        timeout: float | None = None,
    ) -> AsyncDifferentiation:
        """Loss and gradient of an objective with respect to a picture, again and again.

            async with client.differentiate(objective) as differentiation:
                evaluation = await differentiation.evaluate(picture)

        Args:
            objective: The loss. Its pictures may be given as any input; encoded ones keep their size.
            element_type: The type in which gradients travel.
            timeout: Seconds for the whole session.

        Raises:
            InvalidInput: When the block is entered: a stage is unknown, or the pictures do not fit each other.
        """
        kind = choose(ElementType, element_type, "element_type")
        state = DifferentiationState(objective, kind, self._weights_digest)
        read = blocking(read_objective, objective)
        return AsyncDifferentiation(self._connection, state, read, self._attempts(timeout))

    def descend(self, start: DescentStart, *, timeout: float | None = None) -> AsyncDescent:
        """Descends on an objective, where the network is: loss, gradient and optimizer stay on its device.

            async with client.descend(DescentStart(objective=objective, iterations=300)) as descent:
                async for event in descent: ...

        Args:
            start: What to do. Its pictures may be given as any input; encoded ones keep their size, but `initial` is
                brought to the content's.
            timeout: Seconds for the whole descent.
        """
        start = self._pinned(checked(DescentStart, start, "start"))
        read = blocking(read_descent_start, start)
        return AsyncDescent(self._connection, DescentSession(start), read, self._attempts(timeout))

    def see(
        self,
        stage: str,
        channels: int | Iterable[int] | None = None,
        pictures: SeenInput | None = None,
        *,
        timeout: float | None = None,
        **what: Unpack[SeeOptions],
    ) -> AsyncEvents[SeeEvent, SeeResult]:
        """Shows what channels of a stage respond to, with the caller's own pictures.

            async for event in client.see("layer3", [712, 5], "pictures/"): ...

        For each channel: the strongest patches of the pictures, at most one of a picture, at their receptive fields;
        their projections back to pixels (Zeiler and Fergus, ECCV 2014); and a picture optimized for the channel (Olah
        et al., Distill 2017), which is reported while it forms. Without channels: the patches of all channels of the
        stage, in one pass, for a contact sheet.

        Returns events as they come; the last is the `SeeResult`, which has all patches and optimized pictures. Closing
        the events cancels the work. If the server is lost, it is done again at the next one that answers, with the same
        weights, and the events go on. The events' `run_id` is empty: the server stores nothing.

        Args:
            stage: The name of a stage, from `Client.model()`.
            channels: Channels of the stage, counted from 0; one or several, at most 64. Default: all of the stage.
            pictures: A folder; pictures; or one picture. Default: none, so that there are only optimized pictures.
            timeout: Seconds for the whole call.
            what: `patches`, `projection`, `optimize` and the other `SeeOptions`.

        Raises:
            NotFound: There is no such folder or file, or no picture below the folder.
            InvalidInput: There is no such stage or channel, a setting is wrong, or no picture can be read.
            Overloaded: The server's queue stayed full.
            Unavailable: The server was lost for longer than the client's patience.
        """

        def start() -> SeeCall:
            unread = read_seen(pictures)
            digest = self._weights_digest
            order = make_see_start(stage, channels, what, has_pictures=bool(unread), weights_digest=digest)
            return SeeCall(order, unread)

        return AsyncEvents("", self._events(SEE, blocking(start), self._attempts(timeout)), SeeResult)

    def _pinned(self, order: O) -> O:
        """The order, for the network that the client wants unless the order itself names one."""
        return order if order.weights_digest else replace(order, weights_digest=self._weights_digest)

    async def _extract(self, picture: PictureInput, extraction: Extraction, timeout: float | None) -> Features:
        read = await blocking(read_picture, picture, resize=extraction.resize)
        request = encode_extract_request(extraction, [read])
        (outcome,) = decode_extract_response(await self._unary(EXTRACT, request, timeout), 1)
        if isinstance(outcome, GramletError):
            raise outcome
        return outcome


@checks_calls
class AsyncDifferentiation(OfOneProcess):
    """An objective at the network, until the `async with` block ends.

    If the server is lost, the next one that answers at the address receives the objective again, within the client's
    patience; it must have the same weights.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        state: DifferentiationState,
        objective: Awaitable[Objective],
        attempts: Attempts,
    ) -> None:
        self._connection = connection
        self._state = state
        self._unread: Awaitable[Objective] | None = objective
        self._attempts = attempts
        self._stream: AsyncStream | None = None
        self._alone = Alone("this differentiation: ask one after the other, or open one for each")
        self._called = CallContext()

    @property
    def reconnects(self) -> int:
        """How often the network was lost and found again."""
        return self._state.reconnects

    @property
    def weights_digest(self) -> str:
        """The digest of the network's weights."""
        return self._state.weights_digest

    async def __aenter__(self) -> Self:
        await self._patiently(_nothing)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session."""
        if self._stream is not None:
            await self._stream.finish()
        await self._drop()

    async def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), RGB in 0..1; values outside are not clipped.

        Raises:
            InvalidInput: The picture does not fit the objective.
            OtherWeights: No server has the weights of the one that was lost.
            Unavailable: The server was lost for longer than the client's patience.
        """
        point = read_point(picture)

        async def ask(stream: AsyncStream) -> Evaluation:
            await _send(stream, self._state.evaluate(point))
            while (evaluation := self._state.evaluation(await _receive(stream))) is None:
                pass
            return evaluation

        return await self._patiently(ask)

    async def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on.

        Raises:
            InvalidInput: The objective is wrong; the old one stays.
        """
        new = await blocking(read_objective, objective)
        await self._patiently(lambda stream: self._set(stream, new))

    async def _patiently(self, ask: Callable[[AsyncStream], Awaitable[T]]) -> T:
        with self._alone, self._called.restored():
            return await self._asked(ask)

    async def _asked(self, ask: Callable[[AsyncStream], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await ask(await self._opened())
            except GramletError as error:
                await self._drop()
                self._state.broken(error)
                await self._connection.pause(self._attempts.delay_after(error))
            else:
                self._attempts.answered()
                return answer

    async def _opened(self) -> AsyncStream:
        if self._unread is not None:
            self._state.objective = await self._unread
            self._unread = None
        if self._stream is None:
            parts = split(self._state.setup(self._state.objective))
            self._stream = await self._connection.open(DIFFERENTIATE, next(parts), self._attempts)
            for part in parts:
                await self._stream.send(part)
            self._state.ready(await _receive(self._stream), self._state.objective)
            self._attempts.answered(new=False)
        return self._stream

    async def _drop(self) -> None:
        if self._stream is not None:
            await self._stream.close()
        self._stream = None

    async def _set(self, stream: AsyncStream, objective: Objective) -> None:
        await _send(stream, self._state.setup(objective))
        self._state.ready(await _receive(stream), objective)


async def _nothing(stream: AsyncStream) -> None:
    """Asks the network for nothing but to accept the objective."""


async def _send(stream: AsyncStream, message: Message) -> None:
    for part in split(message):
        await stream.send(part)


async def _receive(stream: AsyncStream) -> Message:
    joiner: Joiner[Any] = Joiner()
    while (message := joiner.add(await stream.receive())) is None:
        pass
    return message
