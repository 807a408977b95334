"""grpc.health.v1: whether the server, and each service, is serving.

Anybody may ask, without a token. So nothing here may wait for a caller while others wait for it: the calls have threads
of their own, each waits for its caller only for a time, no lock is held while a reply is sent, and a watch that is open
has no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import grpc
from gramlet.errors import GramletError, Overloaded
from grpc_health.v1 import health, health_pb2

from gramlet_server.runtime.errors import abort
from gramlet_server.runtime.incoming import Incoming, Patience
from gramlet_server.runtime.silence import Silences, end_call, status_code

NAME = health.SERVICE_NAME
SERVER = health.OVERALL_HEALTH
"""The name of the server as a whole, among the names of services."""
LIVENESS = "liveness"
"""The name under which a process serves for as long as it lives, also while it loads and drains."""

_THREADS = 64
# More calls that wait for their request than this many make the oldest of them end.
_MAY_WAIT = 48
_GROUP = "health"
# A request of a few bytes comes with its headers.
_PATIENCE = Patience(first=1.0, idle=5.0)
# Clients of gRPC keep a watch open for each server that they know. If more are open, the oldest end; their clients open
# them again.
_WATCHES = 4096
# How long a server that shuts down waits until its watches have sent their last status.
_LAST_SECONDS = 1.0

_Status: Any = health_pb2.HealthCheckResponse.ServingStatus


class _Watch:
    """A caller who wants to know of every change of one name.

    Args:
        name: The name.
        context: gRPC's.
        send: Sends a reply, and waits until it is sent. Ends the call if the reply is None.
    """

    def __init__(self, name: str, context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        self.name = name
        self.context = context
        self._send = send
        self._lock = threading.Lock()
        self._changed = False
        self._sending = False
        self._is_last = False
        self._sent: Any = None

    def report(self, current: Callable[[], Any], silences: Silences, *, last: bool = False) -> None:
        """Sends the current status, unless it was the last one sent; then ends the call if it is to be the last.

        If another thread is sending, that thread does all of this afterwards.
        """
        with self._lock:
            self._changed = True
            self._is_last |= last
            if self._sending:
                return
            self._sending = True
        while self._has_changed():
            status = current()
            if status != self._sent:
                with silences.limited(self.context, _PATIENCE.idle, "the health was not read", group=_GROUP):
                    self._send(health_pb2.HealthCheckResponse(status=status))
                self._sent = status
        if self._takes_the_end():
            # With the code OK: clients of gRPC drop replies that they have not read when a call ends with an error.
            self._send(None)

    def _has_changed(self) -> bool:
        with self._lock:
            changed, self._changed = self._changed, False
            self._sending = changed
            return changed

    def _takes_the_end(self) -> bool:
        """Whether this thread has to end the call: exactly one does."""
        with self._lock:
            ends = self._is_last and not self._sending
            self._is_last &= not ends
            return ends


class Health:
    """The state of each service, and of the server as a whole.

    Args:
        silences: Ends calls whose callers are silent.
    """

    def __init__(self, silences: Silences) -> None:
        self._silences = silences
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="health")
        self._lock = threading.Lock()
        self._statuses: dict[str, Any] = {LIVENESS: _Status.SERVING}
        self._watches: dict[_Watch, None] = {}  # in the order in which they were opened
        self._shutting_down = False
        self._watches_end = False

    def add_to(self, server: grpc.Server, services: Iterable[str]) -> None:
        """Answers health checks of a server. The server and its services are not serving at first."""
        self._statuses |= dict.fromkeys((SERVER, *services), _Status.NOT_SERVING)

        def check(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            return self._check(messages, context)

        def watch(messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            self._watch(messages, context, send)

        # What gRPC's own health service uses as well. A watch then has no thread while nothing changes.
        check.experimental_thread_pool = watch.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        handlers: dict[str, Any] = {
            "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=serialize),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))

    def set_serving(self, name: str, serving: bool) -> None:
        """Whether a service, or the SERVER, is serving from now on. Without effect once the server drains."""
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        with self._lock:
            if self._shutting_down or self._statuses[name] == status:  # open watches report changes only
                return
            self._statuses[name] = status
        self._report(name)

    def enter_graceful_shutdown(self) -> None:
        """Nothing is serving from now on, whatever is set later."""
        with self._lock:
            self._shutting_down = True
            names = self._statuses.keys() - {LIVENESS}
            self._statuses |= dict.fromkeys(names, _Status.NOT_SERVING)
        self._report(*names)

    def end_watches(self) -> None:
        """Ends all watches after their last status: they never end by themselves, and would delay the server's end.

        Those whose callers do not read are cancelled.
        """
        with self._lock:
            self._watches_end = True
            watches = list(self._watches)
        ends = {self._submit(watch, last=True): watch for watch in watches}
        for late in wait(ends, _LAST_SECONDS).not_done:
            ends[late].context.cancel()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False)

    def _report(self, *names: str) -> None:
        with self._lock:
            watches = [watch for watch in self._watches if watch.name in names]
        for watch in watches:
            self._submit(watch)

    def _submit(self, watch: _Watch, *, last: bool = False) -> Future[None]:
        return self._pool.submit(watch.report, partial(self._status, watch.name), self._silences, last=last)

    def _status(self, name: str) -> Any:
        return self._statuses.get(name, _Status.SERVICE_UNKNOWN)

    def _check(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        service = self._service(messages, context)
        status = self._statuses.get(service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "this server does not offer such a service")
        return health_pb2.HealthCheckResponse(status=status)

    def _watch(self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        watch = _Watch(self._service(messages, context), context, send)
        with self._lock:
            oldest = next(iter(self._watches)) if len(self._watches) >= _WATCHES else None
            if oldest is not None:
                del self._watches[oldest]
            self._watches[watch] = None
            last = self._watches_end
        if oldest is not None:
            end_call(oldest.context, Overloaded(f"more than {_WATCHES} watches are open: open this one again"))
        if context.add_callback(lambda: self._forget(watch)):
            watch.report(partial(self._status, watch.name), self._silences, last=last)
        else:
            self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        # gRPC calls this on the thread that serves everything: the lock is never held for long.
        with self._lock:
            self._watches.pop(watch, None)

    def _service(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> str:
        """The name in the request, which is the first message."""
        decode = health_pb2.HealthCheckRequest.FromString
        self._silences.make_room(_GROUP, at_most=_MAY_WAIT)
        try:
            return str(Incoming(messages, context, decode, self._silences, _PATIENCE, _GROUP).only().service)
        except GramletError as error:
            abort(context, status_code(error), str(error))
        except grpc.RpcError:
            abort(context, grpc.StatusCode.CANCELLED, "the caller left")
