"""FeatureService: decodes, calls the engine, encodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import grpc
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature import objective_wire
from gramlet.feature import wire as messages
from gramlet.feature.v1 import feature_pb2, feature_pb2_grpc
from gramlet.tensor.parts import joined, split
from gramlet.types import ElementType, Picture

from gramlet_server.feature.engine import Engine


class FeatureServicer(feature_pb2_grpc.FeatureServiceServicer):
    """The network of an engine, over gRPC."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def GetModel(
        self, request: feature_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> feature_pb2.GetModelResponse:
        """The network being served."""
        return messages.encode_model(self._engine.model())

    def Extract(
        self, request: feature_pb2.ExtractRequest, context: grpc.ServicerContext
    ) -> feature_pb2.ExtractResponse:
        """Features of a few pictures."""
        extraction, pictures = messages.decode_extract_request(request)
        outcomes = self._engine.extract_together(pictures, extraction)
        return feature_pb2.ExtractResponse(
            results=[messages.encode_outcome(outcome, extraction) for outcome in outcomes]
        )

    def ExtractStream(
        self, request_iterator: Iterator[feature_pb2.ExtractStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.ExtractStreamResponse]:
        """Features of a collection, picture by picture, in the order of the pictures."""
        extraction = messages.decode_extract_start(request_iterator)
        ids: deque[str] = deque()

        def pictures() -> Iterator[Picture | GramletError]:
            for request in request_iterator:
                identifier, picture = messages.decode_extract_item(request)
                ids.append(identifier)
                yield picture

        for outcome in self._engine.extract(pictures(), extraction):
            result = messages.encode_outcome(outcome, extraction)
            yield feature_pb2.ExtractStreamResponse(id=ids.popleft(), result=result)

    def Differentiate(
        self, request_iterator: Iterator[feature_pb2.DifferentiateRequest], context: grpc.ServicerContext
    ) -> Iterator[feature_pb2.DifferentiateResponse]:
        """Loss and gradient, picture by picture."""
        element_type = ElementType.FLOAT32
        with self._engine.differentiation() as differentiation:
            # A lost client must not wait for its turn at the device.
            context.add_callback(differentiation.close)
            for request in joined(request_iterator):
                match request.WhichOneof("message"):
                    case "setup":
                        objective, element_type = objective_wire.decode_setup(
                            request.setup, self._engine.load_picture, self._engine.load_region
                        )
                        differentiation.replace(objective)
                        yield objective_wire.encode_ready(self._engine.model().weights_digest)
                    case "evaluate":
                        picture, sequence = objective_wire.decode_evaluate(request.evaluate)
                        evaluation = differentiation.evaluate(picture)
                        yield from split(objective_wire.encode_evaluation(evaluation, sequence, element_type))
                    case _:
                        raise InvalidInput("neither an objective nor a picture", field="message")
