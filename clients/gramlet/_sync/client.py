"""The synchronous client. `gramlet._async.client` is its twin for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar, Unpack, overload

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gramlet._sync.embed import EmbedCalls
from gramlet._sync.stylize import StylizeCalls
from gramlet._sync.train import TrainCalls
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
from gramlet.transport.channel import DEFAULT_ADDRESS, Endpoint, Tls
from gramlet.transport.retry import AT_ONCE, Attempts, RetryPolicy
from gramlet.transport.sync import Connection, Stream
from gramlet.types import Array, ElementType

T = TypeVar("T")


class Client(StylizeCalls, TrainCalls, EmbedCalls):
    """A gramlet server, or several of one kind.

    Pictures are given as paths, bytes, PIL pictures or arrays everywhere. Failures are `gramlet.GramletError`s. Calls
    that a lost or busy server can be asked again are asked again, for `patience` seconds. One client may be used from
    many threads.

    Args:
        address: `host:port`, `dns:///name:port`, or several addresses with commas between them. Calls are spread over
            what a name resolves to or a list holds; the names in a list are looked up once, now.
        token: Sent with every call. Use TLS with it.
        tls: TLS with these files; True trusts the system's authorities; None is plaintext.
        timeout: Seconds that a call may take, repetitions included; None is no limit. Calls can have their own.
        patience: Seconds for which a lost server is waited for.
        first_contact: The same for one that has never answered, where the address is likely wrong.

    Raises:
        InvalidInput: The address or the TLS files make no sense.
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
        self._connection = Connection(Endpoint(address, token, tls))
        self._timeout = timeout
        self._policy = RetryPolicy(patience=patience, first_contact=first_contact)

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    def with_options(
        self, *, timeout: float | None = None, patience: float | None = None, first_contact: float | None = None
    ) -> Client:
        """The same connection with another timeout or patience; what is None stays."""
        other = object.__new__(type(self))
        other._connection = self._connection
        other._timeout = self._timeout if timeout is None else timeout
        other._policy = self._policy.but(patience=patience, first_contact=first_contact)
        return other

    def close(self) -> None:
        """Ends every call and closes the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- features ---

    def model(self, *, timeout: float | None = None) -> Model:
        """The network being served: its stages, weights digest, device, limits and load."""
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        return decode_model(self._unary(stub.GetModel, feature_pb2.GetModelRequest(), timeout))

    @overload
    def features(  # type: ignore[overload-overlap]  # a path is also an iterable of strings, but one picture
        self, pictures: PictureInput, *, timeout: float | None = None, **what: Unpack[ExtractionOptions]
    ) -> Features: ...

    @overload
    def features(
        self, pictures: Iterable[PictureInput], *, timeout: float | None = None, **what: Unpack[ExtractionOptions]
    ) -> Iterator[Features | GramletError]: ...

    def features(
        self,
        pictures: PictureInput | Iterable[PictureInput],
        *,
        timeout: float | None = None,
        **what: Unpack[ExtractionOptions],
    ) -> Features | Iterator[Features | GramletError]:
        """Features of one picture, or of many: `features("a.jpg", stages=["layer1"], gram=True).grams["layer1"]`.

        Args:
            pictures: One picture gives its `Features`. An iterable, of any length, gives an iterator of one outcome a
                picture in the same order: `Features`, or as a value the error of a picture that could not be read.
                It is consumed while the results are, a few pictures ahead.
            timeout: Seconds for the whole call.
            what: `stages` (required), `activations`, `gram`, `pooled` and the other `ExtractionOptions`.

        Raises:
            InvalidInput: One picture that is none, or an unknown stage.
            NotFound: One picture whose file does not exist.
        """
        extraction = make_extraction(**what)
        if is_one_picture(pictures) or not isinstance(pictures, Iterable):
            return self._extract(pictures, extraction, timeout)  # type: ignore[arg-type]  # just found to be one
        return self.extract(pictures, extraction, timeout=timeout)  # type: ignore[arg-type]  # just found to be many

    def extract(
        self,
        pictures: Iterable[PictureInput],
        extraction: Extraction,
        *,
        in_flight: int = 16,
        timeout: float | None = None,
    ) -> Iterator[Features | GramletError]:
        """Features of many pictures, as `features` gives them, with the extraction as one value.

        Args:
            pictures: Any number.
            extraction: What to extract from each.
            in_flight: Pictures under way at once.
            timeout: Seconds for the whole call.
        """
        return self._extract_all(iter(pictures), CorpusWindow(extraction, in_flight), self._attempts(timeout))

    def differentiate(
        self,
        objective: Objective,
        *,
        element_type: ElementType | str = ElementType.FLOAT32,
        timeout: float | None = None,
    ) -> Differentiation:
        """Loss and gradient of an objective with respect to a picture, again and again. Use it in a `with`.

        Args:
            objective: The loss. Its pictures may be given as any input; encoded ones keep their size.
            element_type: How gradients travel.
            timeout: Seconds for the whole session.

        Raises:
            InvalidInput: On entering: an unknown stage, or pictures that do not fit each other.
        """
        return Differentiation(
            self._connection,
            DifferentiationState(read_objective(objective), choose(ElementType, element_type, "element_type")),
            self._attempts(timeout),
        )

    # --- status ---

    def status(self, *, timeout: float | None = None) -> ServerStatus:
        """Which services the server offers, how they are, and how busy.

        Raises:
            Unavailable: Nobody answers.
        """
        asking = self.with_options(timeout=timeout, patience=AT_ONCE.patience)
        answers = {service: asking._health(service) for service in SERVICES}
        health = health_by_service(answers)
        return ServerStatus(
            address=self.address,
            health=health,
            model=asking.model() if health[FEATURE] is Health.SERVING else None,
            stylize=asking._stylize_status() if health[STYLIZE] is Health.SERVING else None,
        )

    # --- how calls are made ---

    def _extract(self, picture: PictureInput, extraction: Extraction, timeout: float | None) -> Features:
        request = encode_extract_request(extraction, [read_picture(picture)])
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        outcome = decode_outcome(self._unary(stub.Extract, request, timeout).results[0])
        if isinstance(outcome, GramletError):
            raise outcome
        return outcome

    def _extract_all(
        self, pictures: Iterator[PictureInput], window: CorpusWindow, attempts: Attempts
    ) -> Generator[Features | GramletError, None, None]:
        stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
        stream: Stream[Any, Any] | None = None
        try:
            while _filled(window, pictures):
                yield from window.outcomes()
                if not window.is_waiting:
                    continue
                try:
                    stream = stream or self._connection.stream(stub.ExtractStream, attempts)
                    _exchange(stream, window)
                    attempts.answered()
                except GramletError as error:
                    _close(stream)
                    stream = None
                    window.broken()
                    time.sleep(attempts.delay_after(error))
            if stream is not None:
                stream.finish()
        finally:
            _close(stream)

    def _stylize_status(self) -> StylizeStatus:
        stub = stylize_pb2_grpc.StylizeServiceStub(self._connection.channel)
        return decode_status(self._unary(stub.GetStatus, stylize_pb2.GetStatusRequest(), None))

    def _health(self, service: str) -> Health | GramletError:
        stub: Any = health_pb2_grpc.HealthStub(self._connection.channel)  # its stubs lack the methods
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = self._connection.unary(stub.Check, request, self._attempts(None), ((ASKED_FOR, service),))
            return decode_health(answer.status)
        except GramletError as error:
            return error


class Differentiation:
    """An objective in place at the network, until the `with` block ends.

    If the server is lost, the next one that answers at the address is given the objective again, for the client's
    patience; it must have the same weights.
    """

    def __init__(self, connection: Connection, state: DifferentiationState, attempts: Attempts) -> None:
        self._connection = connection
        self._state = state
        self._attempts = attempts
        self._stream: Stream[Any, Any] | None = None

    @property
    def reconnects(self) -> int:
        """How often the network was lost and found again."""
        return self._state.reconnects

    @property
    def weights_digest(self) -> str:
        """The network's weights."""
        return self._state.weights_digest

    def __enter__(self) -> Differentiation:
        self._patiently(lambda stream: None)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the objective away."""
        if self._stream is not None:
            self._stream.finish()
        self._stream = None

    def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), RGB in 0..1; values outside are not clipped.

        Raises:
            InvalidInput: The picture does not fit the objective.
            FailedPrecondition: The server came back with other weights.
            Unavailable: The server was lost for longer than the client's patience.
        """
        message = self._state.evaluate(picture)

        def ask(stream: Stream[Any, Any]) -> Evaluation:
            _send(stream, message)
            while (evaluation := self._state.evaluation(_receive(stream))) is None:
                pass
            return evaluation

        return self._patiently(ask)

    def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on.

        Raises:
            InvalidInput: The objective is wrong; the old one stays.
        """
        new = read_objective(objective)
        self._patiently(lambda stream: self._put_in_place(stream, new))

    def _patiently(self, ask: Callable[[Stream[Any, Any]], T]) -> T:
        while True:
            try:
                answer = ask(self._opened())
            except GramletError as error:
                self._drop()
                self._state.broken(error)
                delay = self._attempts.delay_after(error)
            else:
                self._attempts.answered()
                return answer
            time.sleep(delay)

    def _opened(self) -> Stream[Any, Any]:
        if self._stream is None:
            stub = feature_pb2_grpc.FeatureServiceStub(self._connection.channel)
            self._stream = self._connection.stream(stub.Differentiate, self._attempts)
            self._put_in_place(self._stream, self._state.objective)
            self._attempts.answered(new=False)
        return self._stream

    def _drop(self) -> None:
        _close(self._stream)
        self._stream = None

    def _put_in_place(self, stream: Stream[Any, Any], objective: Objective) -> None:
        _send(stream, self._state.setup(objective))
        self._state.ready(_receive(stream), objective)


def _send(stream: Stream[Any, Any], message: Any) -> None:
    for part in split(message):
        stream.send(part)


def _receive(stream: Stream[Any, Any]) -> Any:
    joiner: Joiner[Any] = Joiner()
    while (message := joiner.add(stream.receive())) is None:
        pass
    return message


def _filled(window: CorpusWindow, pictures: Iterator[PictureInput]) -> bool:
    """Fills the window; whether there is anything left to do."""
    while window.has_room:
        try:
            picture = next(pictures)
        except StopIteration:
            break
        window.add(picture)
    return not window.is_empty


def _exchange(stream: Stream[Any, Any], window: CorpusWindow) -> None:
    for message in window.messages():
        stream.send(message)
    window.accept(stream.receive())


def _close(stream: Stream[Any, Any] | None) -> None:
    if stream is not None:
        stream.close()
