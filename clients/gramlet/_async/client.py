"""The asyncio client: the twin of `gramlet._sync.client`, where everything is explained. Both only move messages."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from typing import Any, TypeVar, Unpack, overload

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gramlet._async.embed import AsyncEmbedCalls
from gramlet._async.inputs import aiter_of
from gramlet._async.stylize import AsyncStylizeCalls
from gramlet._async.train import AsyncTrainCalls
from gramlet.errors import GramletError
from gramlet.feature.inputs import ExtractionOptions, make_extraction, read_objective
from gramlet.feature.sessions import CorpusWindow, DifferentiationState
from gramlet.feature.types import Evaluation, Extraction, Features, Model, Objective
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.feature.wire import decode_model, decode_outcome, encode_extract_request
from gramlet.health import ASKED_FOR, FEATURE, SERVICES, STYLIZE, Health, ServerStatus, decode_health, health_by_service
from gramlet.inputs import PictureInput, choose, is_one_picture, read_picture
from gramlet.stylize.types import StylizeStatus
from gramlet.stylize.v1 import stylize_pb2, stylize_pb2_grpc
from gramlet.stylize.wire import decode_status
from gramlet.tensor.parts import Joiner, split
from gramlet.transport.aio import AsyncConnection, AsyncStream
from gramlet.transport.channel import DEFAULT_ADDRESS, Endpoint, Tls
from gramlet.transport.retry import AT_ONCE, Attempts, RetryPolicy
from gramlet.types import Array, ElementType

T = TypeVar("T")


class AsyncClient(AsyncStylizeCalls, AsyncTrainCalls, AsyncEmbedCalls):
    """A gramlet server, or several of one kind: `gramlet.Client` for asyncio.

    The same calls with the same arguments and errors. What takes time is awaited; what gives an iterator there gives an
    asynchronous one here. It belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        tls: Tls | bool | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
        first_contact: float = 2.0,
    ) -> None:
        self._connection = AsyncConnection(Endpoint(address, token, tls))
        self._timeout = timeout
        self._policy = RetryPolicy(patience=patience, first_contact=first_contact)

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    def with_options(
        self, *, timeout: float | None = None, patience: float | None = None, first_contact: float | None = None
    ) -> AsyncClient:
        """The same connection with another timeout or patience; what is None stays."""
        other = object.__new__(type(self))
        other._connection = self._connection
        other._timeout = self._timeout if timeout is None else timeout
        other._policy = self._policy.but(patience=patience, first_contact=first_contact)
        return other

    async def close(self) -> None:
        """Ends every call and closes the connection."""
        await self._connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- features ---

    async def model(self, *, timeout: float | None = None) -> Model:
        """The network being served."""
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        return decode_model(await self._unary(stub.GetModel, feature_pb2.GetModelRequest(), timeout))

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
        """Features of one picture (await it), or of many (`async for`). The many may be an asynchronous iterable."""
        extraction = make_extraction(**what)
        if is_one_picture(pictures) or not isinstance(pictures, Iterable | AsyncIterable):
            return self._extract(pictures, extraction, timeout)  # type: ignore[arg-type]  # just found to be one
        return self.extract(pictures, extraction, timeout=timeout)  # type: ignore[arg-type]  # just found to be many

    def extract(
        self,
        pictures: Iterable[PictureInput] | AsyncIterable[PictureInput],
        extraction: Extraction,
        *,
        in_flight: int = 16,
        timeout: float | None = None,
    ) -> AsyncIterator[Features | GramletError]:
        """Features of many pictures, as `features` gives them, with the extraction as one value."""
        return self._extract_all(aiter_of(pictures), CorpusWindow(extraction, in_flight), self._attempts(timeout))

    def differentiate(
        self,
        objective: Objective,
        *,
        element_type: ElementType | str = ElementType.FLOAT32,
        timeout: float | None = None,
    ) -> AsyncDifferentiation:
        """Loss and gradient of an objective with respect to a picture. Use it in an `async with`."""
        return AsyncDifferentiation(
            self._connection,
            DifferentiationState(read_objective(objective), choose(ElementType, element_type, "element_type")),
            self._attempts(timeout),
        )

    # --- status ---

    async def status(self, *, timeout: float | None = None) -> ServerStatus:
        """Which services the server offers, how they are, and how busy."""
        asking = self.with_options(timeout=timeout, patience=AT_ONCE.patience)
        answers = await asyncio.gather(*(asking._health(service) for service in SERVICES))
        health = health_by_service(dict(zip(SERVICES, answers, strict=True)))
        return ServerStatus(
            address=self.address,
            health=health,
            model=await asking.model() if health[FEATURE] is Health.SERVING else None,
            stylize=await asking._stylize_status() if health[STYLIZE] is Health.SERVING else None,
        )

    # --- how calls are made ---

    async def _extract(self, picture: PictureInput, extraction: Extraction, timeout: float | None) -> Features:
        request = encode_extract_request(extraction, [await asyncio.to_thread(read_picture, picture)])
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        outcome = decode_outcome((await self._unary(stub.Extract, request, timeout)).results[0])
        if isinstance(outcome, GramletError):
            raise outcome
        return outcome

    async def _extract_all(
        self, pictures: AsyncIterator[PictureInput], window: CorpusWindow, attempts: Attempts
    ) -> AsyncGenerator[Features | GramletError, None]:
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        stream: AsyncStream[Any, Any] | None = None
        try:
            while await _filled(window, pictures):
                for outcome in window.outcomes():
                    yield outcome
                if not window.is_waiting:
                    continue
                try:
                    stream = stream or self._connection.stream(stub.ExtractStream, attempts)
                    await _exchange(stream, window)
                    attempts.answered()
                except GramletError as error:
                    _close(stream)
                    stream = None
                    window.broken()
                    await asyncio.sleep(attempts.delay_after(error))
            if stream is not None:
                await stream.finish()
        finally:
            _close(stream)

    async def _stylize_status(self) -> StylizeStatus:
        stub = stylize_pb2_grpc.StylizeServiceStub(self._connection.channel)
        return decode_status(await self._unary(stub.GetStatus, stylize_pb2.GetStatusRequest(), None))

    async def _health(self, service: str) -> Health | GramletError:
        stub: Any = health_pb2_grpc.HealthStub(self._connection.channel)  # its stubs lack the methods
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = await self._connection.unary(stub.Check, request, self._attempts(None), ((ASKED_FOR, service),))
            return decode_health(answer.status)
        except GramletError as error:
            return error


class AsyncDifferentiation:
    """An objective in place at the network until the `async with` block ends: `gramlet.Differentiation` for asyncio."""

    def __init__(self, connection: AsyncConnection, state: DifferentiationState, attempts: Attempts) -> None:
        self._connection = connection
        self._state = state
        self._attempts = attempts
        self._stream: AsyncStream[Any, Any] | None = None

    @property
    def reconnects(self) -> int:
        """How often the network was lost and found again."""
        return self._state.reconnects

    @property
    def weights_digest(self) -> str:
        """The network's weights."""
        return self._state.weights_digest

    async def __aenter__(self) -> AsyncDifferentiation:
        await self._patiently(_nothing)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Takes the objective away."""
        if self._stream is not None:
            await self._stream.finish()
        self._stream = None

    async def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), RGB in 0..1; values outside are not clipped."""
        message = self._state.evaluate(picture)

        async def ask(stream: AsyncStream[Any, Any]) -> Evaluation:
            await _send(stream, message)
            while (evaluation := self._state.evaluation(await _receive(stream))) is None:
                pass
            return evaluation

        return await self._patiently(ask)

    async def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on."""
        new = read_objective(objective)
        await self._patiently(lambda stream: self._put_in_place(stream, new))

    async def _patiently(self, ask: Callable[[AsyncStream[Any, Any]], Awaitable[T]]) -> T:
        while True:
            try:
                answer = await ask(await self._opened())
            except GramletError as error:
                self._drop()
                self._state.broken(error)
                delay = self._attempts.delay_after(error)
            else:
                self._attempts.answered()
                return answer
            await asyncio.sleep(delay)

    async def _opened(self) -> AsyncStream[Any, Any]:
        if self._stream is None:
            stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
            self._stream = self._connection.stream(stub.Differentiate, self._attempts)
            await self._put_in_place(self._stream, self._state.objective)
            self._attempts.answered(new=False)
        return self._stream

    def _drop(self) -> None:
        _close(self._stream)
        self._stream = None

    async def _put_in_place(self, stream: AsyncStream[Any, Any], objective: Objective) -> None:
        await _send(stream, self._state.setup(objective))
        self._state.ready(await _receive(stream), objective)


async def _send(stream: AsyncStream[Any, Any], message: Any) -> None:
    for part in split(message):
        await stream.send(part)


async def _receive(stream: AsyncStream[Any, Any]) -> Any:
    joiner: Joiner[Any] = Joiner()
    while (message := joiner.add(await stream.receive())) is None:
        pass
    return message


async def _nothing(_: AsyncStream[Any, Any]) -> None:
    pass


async def _filled(window: CorpusWindow, pictures: AsyncIterator[PictureInput]) -> bool:
    """Fills the window; whether there is anything left to do."""
    while window.has_room:
        try:
            picture = await anext(pictures)
        except StopAsyncIteration:
            break
        await asyncio.to_thread(window.add, picture)  # it reads files
    return not window.is_empty


async def _exchange(stream: AsyncStream[Any, Any], window: CorpusWindow) -> None:
    for message in window.messages():
        await stream.send(message)
    window.accept(await stream.receive())


def _close(stream: AsyncStream[Any, Any] | None) -> None:
    if stream is not None:
        stream.close()
