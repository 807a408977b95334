"""The one place where calls of all four kinds are wrapped: what happens around a call is a context manager."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from gramlet.errors import InvalidInput
from gramlet.transport.channel import REQUEST_ID

_ACCEPTED_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

# Its Watch is served without a thread, which a wrapper would undo; and probes are nobody's business.
_UNWRAPPED = "/grpc.health.v1.Health/"

_KINDS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(frozen=True)
class Call:
    """A call being served: `/package.Service/Method`, the id it is logged under, and gRPC's context."""

    method: str
    request_id: str
    context: grpc.ServicerContext

    def metadata(self, key: str) -> str:
        """The value that the caller sent under a key, or the empty string."""
        return _metadata(self.context, key)


Layer = Callable[[Call], AbstractContextManager[None]]
"""Something that happens around every call. It may refuse one by raising a GramletError as it is entered."""


class CallInterceptor(grpc.ServerInterceptor):
    """Runs every call, except health checks, inside its layers, the first outermost.

    A stream of responses stays inside the layers until it ends. If its call is cancelled, gRPC drops the stream after
    the response under way, which closes the servicer's generator (GeneratorExit) and all that it delegates to.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(details)
        if handler is None or details.method.startswith(_UNWRAPPED):
            return handler
        behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        decoded = _each_decoded if handler.request_streaming else _decoded

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            with self._around(details.method, context):
                return behavior(decoded(request), context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._around(details.method, context):
                yield from behavior(decoded(request), context)

        return _KINDS[handler.request_streaming, handler.response_streaming](
            stream if handler.response_streaming else unary,
            request_deserializer=_keeping_errors(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    @contextmanager
    def _around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        sent = _metadata(context, REQUEST_ID)
        call = Call(method, sent if _ACCEPTED_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex, context)
        with ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(layer(call))
            yield


def _metadata(context: grpc.ServicerContext, key: str) -> str:
    return next((str(value) for name, value in context.invocation_metadata() if name == key), "")


def _keeping_errors(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that returns its error: gRPC would turn it into a bare INTERNAL, though the caller is at fault."""
    if deserialize is None:
        return None

    def deserialized(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return InvalidInput("the bytes are not a message of this call's type")

    return deserialized


def _decoded(request: Any) -> Any:
    if isinstance(request, InvalidInput):
        raise request
    return request


def _each_decoded(requests: Iterator[Any]) -> Iterator[Any]:
    return map(_decoded, requests)
