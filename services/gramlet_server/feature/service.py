"""FeatureService: decodes messages, calls the engine's parts, encodes the results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence

import grpc
from gramlet.errors import Cancelled, GramletError, InvalidInput
from gramlet.feature import descent_wire, objective_wire, see_wire, wire
from gramlet.feature.descent_types import DescentEvent
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.parts import split
from gramlet.types import Array, ElementType, Picture, Resize

from gramlet_server.feature.descents import LocalDescent
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.snapshot import Snapshot
from gramlet_server.feature_source import check_weights
from gramlet_server.pictures.masks import region
from gramlet_server.pictures.prepare import floats
from gramlet_server.runtime.incoming import hurry, joined_from_parts, let_idle


class _Inbox:
    """Passes on, in a thread of its own, what a client sends to its descent.

    Attributes:
        error: Why a message could not be taken. The descent was cancelled for it.
    """

    def __init__(self, requests: Iterator[feature_pb2.DescendRequest], descent: LocalDescent) -> None:
        self.error: GramletError | None = None
        self._descent = descent
        threading.Thread(target=self._read, args=[requests], name="descent-requests", daemon=True).start()

    def _read(self, requests: Iterator[feature_pb2.DescendRequest]) -> None:
        try:
            for request in requests:
                match request.WhichOneof("message"):
                    case "reweight":
                        self._descent.reweight(descent_wire.decode_reweight(request.reweight))
                    case "proceed":
                        self._descent.proceed()
                    case "stop":
                        self._descent.stop()
                    case _:
                        raise InvalidInput("neither weights, nor `proceed`, nor `stop`", field="message")
        except GramletError as error:  # a wrong message, or no memory to join its parts
            self.error = error
            self._descent.cancel()
        except grpc.RpcError:
            pass  # the call has ended


def _messages(burst: Sequence[DescentEvent | Snapshot]) -> Iterator[feature_pb2.DescendResponse]:
    match burst:
        case []:
            yield feature_pb2.DescendResponse()
        case [Snapshot(counts) as state]:
            yield from descent_wire.encode_state(
                state.chunks(), iteration=counts.iteration, number=counts.number, reweighted=state.reweighted
            )
        case _:
            events = [event for event in burst if isinstance(event, DescentEvent)]
            for message in descent_wire.encode_descent_events(events):
                yield from split(message)


def _cancelled(context: grpc.ServicerContext) -> threading.Event:
    """Is set when the call has ended, however it has."""
    event = threading.Event()
    if not context.add_callback(event.set):  # it has ended already
        event.set()
    return event


class FeatureServicer(feature_pb2_grpc.FeatureServiceServicer):
    """The network of an engine, over gRPC."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def GetModel(
        self, request: feature_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> feature_pb2.GetModelResponse:
        """The network being served."""
        return wire.encode_model(self._engine.pinned(request.weights_digest).model())

    def Extract(
        self, request: feature_pb2.ExtractRequest, context: grpc.ServicerContext
    ) -> feature_pb2.ExtractResponse:
        """Features of a few pictures."""
        extraction, pictures = wire.decode_extract_request(request)
        outcomes = self._engine.extractor.together(pictures, extraction, _cancelled(context))
        return feature_pb2.ExtractResponse(results=[wire.encode_outcome(outcome, extraction) for outcome in outcomes])

    def ExtractStream(
        self, request_iterator: Iterator[feature_pb2.ExtractStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.ExtractStreamResponse]:
        """Features of a collection, in the order of the pictures."""
        extraction, messages = wire.decode_extract_stream(request_iterator)
        ids: deque[str] = deque()

        def pictures() -> Iterator[list[Picture | GramletError]]:
            for items in messages:
                ids.extend(identifier for identifier, _ in items)
                yield [picture for _, picture in items]

        for outcomes in self._engine.extractor.stream(pictures(), extraction, _cancelled(context)):
            yield from wire.encode_extract_replies([ids.popleft() for _ in outcomes], outcomes, extraction)

    def Differentiate(
        self, request_iterator: Iterator[feature_pb2.DifferentiateRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.DifferentiateResponse]:
        """Loss and gradient, picture by picture."""
        element_type = ElementType.FLOAT32
        with self._engine.differentiator.open() as differentiation:
            # When the client is gone, its work must not stay in the device's queue.
            if not context.add_callback(differentiation.close):
                differentiation.close()
            for request in joined_from_parts(request_iterator):
                match request.WhichOneof("message"):
                    case "setup":
                        check_weights(request.setup.weights_digest, self._engine.network.digest, "setup.weights_digest")
                        objective, element_type = objective_wire.decode_setup(
                            request.setup, self._picture, self._region, check=self._engine.targets.check
                        )
                        differentiation.replace(objective)
                        yield objective_wire.encode_ready(self._engine.network.digest)
                    case "evaluate":
                        picture, sequence = objective_wire.decode_evaluate(request.evaluate)
                        evaluation = differentiation.evaluate(picture)
                        yield from split(objective_wire.encode_evaluation(evaluation, sequence, element_type))
                    case _:
                        raise InvalidInput("neither an objective nor a picture", field="message")

    def Descend(
        self, request_iterator: Iterator[feature_pb2.DescendRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.DescendResponse]:
        """A descent, iteration by iteration."""
        requests = joined_from_parts(request_iterator)
        check = self._engine.descents.check
        start = descent_wire.decode_descent_start(requests, self._picture, self._region, check)
        with self._engine.descend(start) as descent:
            let_idle(request_iterator)  # what comes now are changes, if any
            del start  # its state may have hundreds of megabytes
            # When the client is gone, its work must not stay at the device.
            if not context.add_callback(descent.cancel):
                descent.cancel()
            inbox = _Inbox(requests, descent)
            try:
                for burst in descent.bursts():
                    yield from _messages(burst)
            except Cancelled as error:
                raise inbox.error or error from None

    def See(
        self, request_iterator: Iterator[feature_pb2.SeeRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.SeeResponse]:
        """What channels respond to, as it is found."""
        start, messages = see_wire.decode_see(request_iterator)
        with self._engine.see(start) as seeing:
            hurry(request_iterator, lambda: seeing.keeps_others_waiting)
            # When the client is gone, its work must not stay in the device's queue.
            if not context.add_callback(seeing.cancel):
                seeing.cancel()
            for event in seeing.events(messages):
                yield see_wire.encode_see_event(event)

    def _picture(self, picture: Picture, field: str) -> Array:
        """(3, H, W) float32."""
        (outcome,) = self._engine.decoder.decode([picture], Resize(), threading.Event())
        if isinstance(outcome, GramletError):
            outcome.field = field
            raise outcome
        return floats(outcome)

    def _region(self, mask: Picture, field: str) -> Array:
        """(H, W) float32 in 0..1."""
        return region(mask, self._engine.passes.limits, field)
