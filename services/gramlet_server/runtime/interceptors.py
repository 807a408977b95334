"""The layers around every call, from the outside: observation, errors (`errors.py`), limits of names, admission."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from gramlet import request_id
from gramlet.errors import Overloaded, counted
from gramlet.transport.channel import REQUEST_ID

from gramlet_server.runtime.calls import Call
from gramlet_server.runtime.incoming import FIRST_MESSAGES, SLOW_CALLS
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.silence import Silences, status_code

_RETRY_SECONDS = 1.0
_REFLECTION = "/grpc.reflection."
_REFLECTIONS = 16
_BURST_SECONDS = 5.0


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
            self._metrics.caller_requests.labels(call.caller.name, code.name).inc()
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


class NameLimits:
    """Refuses calls of a name above its limits, so that one name leaves room for the others.

    Args:
        calls: Calls of one name that may run at once; 0: without a limit.
        per_second: Calls that one name may begin in a second, on average over some seconds; 0: without a limit.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, calls: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._per_second = per_second
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._free_at: dict[str, float] = {}  # when the calls that a name has begun are paid for
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        name = call.caller.name
        if not name:
            yield
            return
        self._begin(name)
        try:
            yield
        finally:
            with self._lock:
                self._running[name] -= 1

    def _begin(self, name: str) -> None:
        with self._lock:
            if self._calls and self._running[name] >= self._calls:
                message = f"{name} has {counted(self._running[name], 'call')} under way, its limit"
                raise Overloaded(message, retry_after=_RETRY_SECONDS)
            if self._per_second:
                now = self._clock()
                free_at = max(self._free_at.get(name, 0.0), now - _BURST_SECONDS)
                if free_at > now:
                    message = f"{name} has begun more than {self._per_second:g} calls a second, its limit"
                    raise Overloaded(message, retry_after=free_at - now)
                self._free_at[name] = free_at + 1 / self._per_second
            self._running[name] += 1


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
            # Room for the next call. This one is refused: the call that is ended takes a moment to leave.
            if not self._silences.make_room(FIRST_MESSAGES):
                self._silences.make_room(SLOW_CALLS)
            limit = self._limits[reflects]
            raise Overloaded(f"the server is busy with {counted(limit, 'call')}, its limit", retry_after=_RETRY_SECONDS)
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
