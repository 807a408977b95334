"""The one place that wraps calls of all four kinds. Each layer around a call is a context manager."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import grpc
from gramlet.errors import Cancelled, GramletError
from gramlet.transport.channel import REQUEST_ID

from gramlet_server.process.identity import NOBODY, Caller, act_for
from gramlet_server.runtime.incoming import Incoming, Patience
from gramlet_server.runtime.outgoing import Outgoing
from gramlet_server.runtime.silence import Silences

T = TypeVar("T")

_REASON_LENGTH = 1024
_ACCEPTED_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

# Probes need no token, log line or metric; health.py guards them.
_UNWRAPPED = "/grpc.health.v1.Health/"

# Refusing a call takes no waiting, so one thread refuses thousands a second. More would only compete for
# the interpreter with the threads of other calls, which then wait twice as long beside a flood of refused calls.
_REFUSING_THREADS = 1

_log = logging.getLogger("gramlet_server.calls")


@dataclass
class Call:
    """A call that is being served.

    Attributes:
        method: `/package.Service/Method`.
        request_id: The id that it is logged under.
        context: gRPC's.
        caller: Who makes it.
        incoming: Its requests; None if none of them is read.
        error: What it failed with, once it has.
        ended_with: What it was ended with from outside, because its caller took no replies.
    """

    method: str
    request_id: str
    context: grpc.ServicerContext
    caller: Caller = NOBODY
    incoming: Incoming | None = None
    error: GramletError | None = None
    ended_with: GramletError | None = None
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.perf_counter() - self._started

    def metadata(self, key: str) -> str:
        """The value that the caller sent under a key, or the empty string."""
        return _metadata(self.context, key)

    def log(self, code: grpc.StatusCode, bug: Exception | None = None) -> None:
        """Writes the one log line of this call.

        The line of a call that failed has the reason, the field of the request, the run and its caller; that of a bug
        has a traceback as well.
        """
        peer, seconds = self.context.peer(), self.seconds
        fields: dict[str, Any] = {"method": self.method, "code": code.name, "seconds": round(seconds, 4), "peer": peer}
        line = f"{self.method} {code.name} {seconds:.3f}s {peer}"
        if self.caller.name:
            fields["caller"] = self.caller.name
            line += f" ({self.caller.name} via {self.caller.via})" if self.caller.via else f" ({self.caller.name})"
        run = "" if self.incoming is None else self.incoming.run
        if run:
            fields["run"] = run
            line += f" run {run}"
        if code is not grpc.StatusCode.OK:
            reason, field = self._reason(code, bug)
            fields |= {"reason": reason, "field": field, "request_id": self.request_id}
            line += f" {field}: {reason}" if field else f": {reason}"
        level = logging.INFO if bug is None else logging.ERROR
        _log.log(level, "%s", line, extra={"fields": fields}, exc_info=bug)

    def _reason(self, code: grpc.StatusCode, bug: Exception | None) -> tuple[str, str]:
        """Why the call failed, on one line, and the field of the request that is at fault."""
        if bug is not None:
            reason = f"{type(bug).__name__}: {bug}"
        elif self.error is not None:
            reason = self.error.message
        else:  # nothing was raised: the call was over before
            late = code is grpc.StatusCode.DEADLINE_EXCEEDED
            reason = "the caller's deadline has passed" if late else "the caller left"
        return " ".join(reason.split())[:_REASON_LENGTH], self.error.field if self.error else ""


Layer = Callable[[Call], AbstractContextManager[None]]
"""Surrounds every call. It may refuse a call by raising a GramletError when it is entered."""


class CallInterceptor(grpc.ServerInterceptor):
    """Runs every call, except health checks, inside its layers, the first outermost.

    Nothing of a request is read before the layers are entered. A call that the gate refuses goes to a pool of threads
    of its own, so that callers without a token cannot take those of others.

    A stream of responses stays inside the layers until it ends. If its call is cancelled, gRPC drops the stream after
    the current response, which closes the servicer's generator (GeneratorExit) and those that it delegates to.

    Args:
        outer: Layers around every call, refused or not.
        inner: Further layers, around the calls that the gate lets in.
        gate: Says who calls. It runs on gRPC's own thread, so it must not wait for anything. It refuses a call by
            raising a GramletError.
        silences: Ends calls whose callers are silent.
        patience: How long they may be.
    """

    def __init__(
        self,
        outer: Sequence[Layer],
        inner: Sequence[Layer],
        gate: Callable[[grpc.HandlerCallDetails], Caller],
        silences: Silences,
        patience: Patience,
    ) -> None:
        self._outer = tuple(outer)
        self._inner = tuple(inner)
        self._gate = gate
        self._silences = silences
        self._patience = patience
        self._refusing = ThreadPoolExecutor(_REFUSING_THREADS, thread_name_prefix="refusal")

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(details)
        if handler is None or details.method.startswith(_UNWRAPPED):
            return handler
        try:
            who = self._gate(details)
        except GramletError as error:
            return self._refusal(details.method, error)
        return self._served(handler, details.method, who)

    def _served(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str, who: Caller
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        def request(messages: Iterator[bytes], call: Call) -> Any:
            call.incoming = Incoming(
                messages, call.context, handler.request_deserializer, self._silences, self._patience
            )
            return call.incoming if handler.request_streaming else call.incoming.only()

        def outgoing(context: grpc.ServicerContext) -> Outgoing:
            return Outgoing(context, handler.response_serializer, self._silences, self._patience)

        def unary(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with self._around(method, context, (*self._outer, *self._inner), who) as call:
                return outgoing(context).only(behavior(request(messages, call), context))

        def stream(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            with self._around(method, context, (*self._outer, *self._inner), who) as call:
                responses = behavior(request(messages, call), context)
                yield from outgoing(context).stream(responses, partial(setattr, call, "ended_with"))

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.stream_unary_rpc_method_handler(unary)

    def _refusal(self, method: str, error: GramletError) -> grpc.RpcMethodHandler[Any, Any]:
        """Ends a call with an error, without reading any of it."""

        def refuse(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with self._around(method, context, self._outer):
                raise error

        refuse.experimental_thread_pool = self._refusing  # type: ignore[attr-defined]  # gRPC looks for this name
        return grpc.stream_unary_rpc_method_handler(refuse)

    @contextmanager
    def _around(
        self, method: str, context: grpc.ServicerContext, layers: Sequence[Layer], who: Caller = NOBODY
    ) -> Iterator[Call]:
        act_for(who)  # in the contextvars context of the call, as the request id
        sent = _metadata(context, REQUEST_ID)
        call = Call(method, sent if _ACCEPTED_REQUEST_ID.fullmatch(sent) else _new_id(), context, who)
        with _within(layers, call):
            try:
                yield call
            finally:
                if call.incoming is not None:
                    call.incoming.close()


@contextmanager
def _within(layers: Sequence[Layer], call: Call) -> Iterator[None]:
    """Enters the layers, the first outermost.

    An ExitStack would leave a cycle of an exception and its frames for each call that fails. Thousands of refused calls
    would then keep the garbage collector busy, and all other threads waiting.
    """
    if not layers:
        yield
        return
    with layers[0](call), _within(layers[1:], call):
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


def _new_id() -> str:
    """An id for logs. It is no secret: to get one from the kernel would give up the interpreter's lock."""
    return f"{random.getrandbits(128):032x}"


def _metadata(context: grpc.ServicerContext, key: str) -> str:
    return next((str(value) for name, value in context.invocation_metadata() if name == key), "")
