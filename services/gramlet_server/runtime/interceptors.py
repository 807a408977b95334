"""The gate, and the layers around every call, from the outside: observation, errors (`errors.py`), admission."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
from gramlet import request_id
from gramlet.errors import Overloaded, Unauthenticated
from gramlet.transport.channel import REQUEST_ID

from gramlet_server.runtime.calls import Call
from gramlet_server.runtime.incoming import FIRST_MESSAGES
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.silence import Silences, status_code

_RETRY_SECONDS = 1.0
_REFLECTION = "/grpc.reflection."
_REFLECTIONS = 16


class Observation:
    """Gives a call its id, in the logs and in the trailing metadata; counts it, and logs it unless it failed."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        # gRPC runs every call in its own contextvars context, so the id never reaches another call. Log lines of this
        # call, and calls that it makes to other servers, carry the id.
        request_id.set(call.request_id)
        call.context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        in_flight = self._metrics.in_flight.labels(call.method)
        in_flight.inc()
        try:
            yield
        finally:
            in_flight.dec()
            code = _outcome(call)
            self._metrics.requests.labels(call.method, code.name).inc()
            self._metrics.request_seconds.labels(call.method).observe(call.seconds)
            if call.error is None:  # otherwise it was logged with its reason
                call.log(code)


def _outcome(call: Call) -> grpc.StatusCode:
    context = call.context
    if call.error is None and call.ended_with is not None:
        call.error = call.ended_with
        call.log(status_code(call.error))
    if call.error is not None:
        return status_code(call.error)
    if context.is_active():
        code: grpc.StatusCode | None = context.code()  # type: ignore[attr-defined]  # missing in the stubs
        return code or grpc.StatusCode.OK
    late = context.time_remaining() == 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


class Tokens:
    """Requires one of the tokens, sent as `authorization: Bearer TOKEN`."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def __call__(self, details: grpc.HandlerCallDetails) -> None:
        """Refuses a call without a token.

        Raises:
            Unauthenticated: It has none, or another one.
        """
        if not self._tokens:
            return
        sent = next((str(value) for key, value in details.invocation_metadata or () if key == "authorization"), "")
        scheme, _, token = sent.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("this server requires a token; send it as authorization: Bearer TOKEN")
        # All are compared, each in constant time, so that the time taken reveals nothing about them.
        matches = [hmac.compare_digest(token.strip().encode(), known) for known in self._tokens]
        if not any(matches):
            raise Unauthenticated("the token is not one of this server's")


class Admission:
    """Refuses calls above a limit with RESOURCE_EXHAUSTED, before any of them is read, and counts those that run.

    Args:
        limit: Calls that may run at once.
        silences: Ends a call that has sent nothing yet, to make room when the limit is reached.
    """

    def __init__(self, limit: int, silences: Silences) -> None:
        self._limits = {False: limit, True: _REFLECTIONS}
        self._running = {False: 0, True: 0}
        self._silences = silences
        self._changed = threading.Condition()

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        # Reflection is counted apart: it answers while the server is busy, and its streams take no other call's place.
        reflects = call.method.startswith(_REFLECTION)
        with self._changed:
            full = self._running[reflects] >= self._limits[reflects]
            self._running[reflects] += not full
        if full:
            self._silences.make_room(FIRST_MESSAGES)
            limit = self._limits[reflects]
            raise Overloaded(f"the server is busy with {limit} calls, its limit", retry_after=_RETRY_SECONDS)
        try:
            yield
        finally:
            with self._changed:
                self._running[reflects] -= 1
                self._changed.notify_all()

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds until no call runs; returns whether none does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running[False], timeout)
