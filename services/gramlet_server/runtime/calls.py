"""The one place that wraps calls of all four kinds. Each layer around a call is a context manager."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from gramlet.errors import Cancelled, GramletError, InvalidInput
from gramlet.transport.channel import REQUEST_ID

T = TypeVar("T")

_REASON_LENGTH = 1024
_ACCEPTED_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

# gRPC serves its Watch without a thread, which wrapping would undo; and probes need no token, log line or metric.
_UNWRAPPED = "/grpc.health.v1.Health/"

_KINDS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


_log = logging.getLogger("gramlet_server.calls")


@dataclass
class Call:
    """A call that is being served.

    Attributes:
        method: `/package.Service/Method`.
        request_id: The id that it is logged under.
        context: gRPC's.
        error: What it failed with, once it has.
    """

    method: str
    request_id: str
    context: grpc.ServicerContext
    error: GramletError | None = None
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.perf_counter() - self._started

    def metadata(self, key: str) -> str:
        """The value that the caller sent under a key, or the empty string."""
        return _metadata(self.context, key)

    def log(self, code: grpc.StatusCode, bug: Exception | None = None) -> None:
        """Writes the one log line of this call. It has a reason if the call failed, and a traceback if by a bug."""
        peer, seconds = self.context.peer(), self.seconds
        fields = {"method": self.method, "code": code.name, "seconds": round(seconds, 4), "peer": peer}
        line = f"{self.method} {code.name} {seconds:.3f}s {peer}"
        if self.error is not None:
            reason = self.error.message if bug is None else f"{type(bug).__name__}: {bug}"
            reason = " ".join(reason.split())[:_REASON_LENGTH]  # a log line stays one line
            fields |= {"reason": reason, "field": self.error.field, "request_id": self.request_id}
            line += f" {self.error.field}: {reason}" if self.error.field else f": {reason}"
        level = logging.INFO if bug is None else logging.ERROR
        _log.log(level, "%s", line, extra={"fields": fields}, exc_info=bug)


Layer = Callable[[Call], AbstractContextManager[None]]
"""Surrounds every call. It may refuse a call by raising a GramletError when it is entered."""


class CallInterceptor(grpc.ServerInterceptor):
    """Runs every call, except health checks, inside its layers, the first outermost.

    A stream of responses stays inside the layers until it ends. If its call is cancelled, gRPC drops the stream after
    the current response, which closes the servicer's generator (GeneratorExit) and those that it delegates to.
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


def until_caller_leaves(requests: Iterator[T]) -> Iterator[T]:
    """The requests of a call, for work that may outlive the call.

    Raises:
        Cancelled: The call ended before all requests had arrived.
    """
    try:
        yield from requests
    except grpc.RpcError:
        raise Cancelled("the caller left before everything had arrived: send the rest again") from None


def _metadata(context: grpc.ServicerContext, key: str) -> str:
    return next((str(value) for name, value in context.invocation_metadata() if name == key), "")


def _keeping_errors(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that returns its error. gRPC would turn it into INTERNAL, although the request is wrong."""
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
