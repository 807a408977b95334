"""The server process: it listens at once, loads its services, serves, and leaves without breaking a call.

`Server` is that life step by step; `serve` runs it under signals and is what `gramlet-server` calls.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import grpc
from gramlet.errors import FailedPrecondition, GramletError, InternalError, Unavailable
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gramlet_server.runtime.calls import CallInterceptor, Layer
from gramlet_server.runtime.config import ServerSettings, format_address
from gramlet_server.runtime.errors import translated
from gramlet_server.runtime.interceptors import Admission, Observation, Tokens
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.tls import CertificateFiles, server_credentials

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Threads beyond those of admitted calls, for health, reflection and refusals. Threads are made only when needed.
_SPARE_THREADS = 256
# When to ask again at a server that still loads its network.
_LOADING_RETRY_SECONDS = 2.0
# How long a cancelled call has to come to its end: one iteration of what it does.
_CANCEL_SECONDS = 5.0
# How long a build that is about to end may take over it.
_BUILD_SECONDS = 1.0

_log = logging.getLogger(__name__)


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Built:
    """A service that is ready.

    Attributes:
        servicer: What implements its calls.
        drain: Told when the process is about to leave: end long streams soon, with Unavailable, where work can go on
            elsewhere. New calls are refused by then.
        close: Lets go of everything, after the last call.
        watch: Given what to call if the service fails for good, as when its device is lost.
    """

    servicer: Any
    drain: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing
    watch: Callable[[Callable[[GramletError], None]], None] = _nothing


@dataclass(frozen=True)
class Service:
    """A gRPC service that the process offers.

    Attributes:
        name: Its full name, such as `gramlet.feature.v1.FeatureService`.
        add: The generated `add_..._to_server`.
        build: Makes it: loads, warms up. Runs once, in the background, while the server already listens.
    """

    name: str
    add: Callable[[Any, grpc.Server], None]
    build: Callable[[], Built]


class _Deferred:
    """Stands in for a servicer until it is built. Calls that come before are refused."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.built: Built | None = None

    def __getattr__(self, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            if self.built is None:
                raise Unavailable(f"{self._name} is still loading", retry_after=_LOADING_RETRY_SECONDS)
            return getattr(self.built.servicer, method)(request, context)

        return call


class _Health(health.HealthServicer):
    """Health whose watches can be ended: an open one is a call as well, and would hold up the end of the server."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[grpc.ServicerContext] = set()

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Any = None) -> Any:
        self._watches.add(context)
        context.add_callback(lambda: self._watches.discard(context))
        return super().Watch(request, context, send_response_callback)

    def cancel_watches(self) -> None:
        for context in list(self._watches):
            context.cancel()


class Server:
    """Services on one port, with health, reflection, metrics and everything that surrounds a call.

    Attributes:
        port: The port that it listens on, once started.
        metrics_port: The port that it answers scrapes on, once started; None where it does not.
    """

    def __init__(self, services: Sequence[Service], settings: ServerSettings, metrics: Metrics | None = None):
        self.port = 0
        self.metrics_port: int | None = None
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._services = [(service, _Deferred(service.name)) for service in services]
        self._health = _Health()
        self._admission = Admission(settings.max_calls)
        self._grpc = self._assemble()
        self._exits = ExitStack()
        self._build: threading.Thread | None = None

    def start(self, when_built: Callable[[GramletError | None], None] = _nothing) -> None:
        """Listens, and begins to build the services.

        Args:
            when_built: Called from another thread with None when all services are built, or with what one failed with,
                be it later.

        Raises:
            FailedPrecondition: The address cannot be had.
            InvalidInput: The certificates cannot be used.
        """
        self.port = self._listen()
        self.metrics_port = self._exits.enter_context(
            self._metrics.served(self._settings.host, self._settings.metrics_port)
        )
        self._grpc.start()
        self._build = threading.Thread(target=self._build_services, args=[when_built], name="build", daemon=True)
        self._build.start()

    def stop(self, drain_seconds: float | None = None, delay_seconds: float = 0.0) -> bool:
        """Leaves: no longer serving, no new calls, running calls finish, what is left of them is cancelled.

        Args:
            drain_seconds: How long running calls have; None: the setting.
            delay_seconds: How long to go on as before, but NOT_SERVING, so that balancers look elsewhere.

        Returns:
            Whether everything came to its end. False: something cannot be stopped, and the process has to end with it.
        """
        self._health.enter_graceful_shutdown()
        time.sleep(delay_seconds)
        seconds = self._settings.drain_seconds if drain_seconds is None else drain_seconds
        ended = self._grpc.stop(seconds)
        self._health.cancel_watches()
        # Those that were built last use those that were built first.
        built = [deferred.built for _, deferred in reversed(self._services) if deferred.built]
        for service in built:
            service.drain()
        if not ended.wait(seconds) and not self._admission.wait_until_idle(0):
            _log.warning("calls are still running after %g s: they are cancelled", seconds)
        # A cancelled call has ended for gRPC, but not for the thread that works for it.
        if not (ended.wait(_CANCEL_SECONDS) and self._admission.wait_until_idle(_CANCEL_SECONDS) and self._is_built()):
            return False
        for service in built:
            service.close()
        self._exits.close()
        return True

    def _assemble(self) -> grpc.Server:
        layers: list[Layer] = [Observation(self._metrics), translated]
        if self._settings.tokens:
            layers.append(Tokens(self._settings.tokens))
        layers.append(self._admission)
        threads = self._settings.max_calls + _SPARE_THREADS
        server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="call"),
            interceptors=[CallInterceptor(layers)],
            options=_channel_options(self._settings),
            maximum_concurrent_rpcs=threads,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._health.set(health.OVERALL_HEALTH, _NOT_SERVING)
        for service, deferred in self._services:
            service.add(deferred, server)
            self._health.set(service.name, _NOT_SERVING)
        names = [service.name for service, _ in self._services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    def _listen(self) -> int:
        settings = self._settings
        if settings.exposed:
            _log.warning("%s is open to everybody who reaches it: it has neither TLS nor a token", settings.address)
        _check_free(settings.host, settings.port)
        try:
            if settings.tls_cert and settings.tls_key:
                files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
                return self._grpc.add_secure_port(settings.address, server_credentials(files))
            return self._grpc.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise FailedPrecondition(f"cannot listen on {settings.address}: {error}") from None

    def _build_services(self, when_built: Callable[[GramletError | None], None]) -> None:
        try:
            for service, deferred in self._services:
                started = time.perf_counter()
                deferred.built = service.build()
                deferred.built.watch(lambda error: self._fail(error, when_built))
                self._health.set(service.name, _SERVING)
                _log.info("%s is ready after %.1f s", service.name, time.perf_counter() - started)
            self._health.set(health.OVERALL_HEALTH, _SERVING)
            when_built(None)
        except GramletError as error:
            when_built(error)
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed; get it with: pip install 'gramlet-server[all]'"
            when_built(FailedPrecondition(message))
        except Exception as error:
            _log.exception("a service could not be built")
            when_built(InternalError(f"{type(error).__name__}: {error}"))

    def _fail(self, error: GramletError, tell: Callable[[GramletError], None]) -> None:
        """Says to all who ask that nothing is served any more."""
        _log.error("%s", error)
        self._health.enter_graceful_shutdown()
        tell(error)

    def _is_built(self) -> bool:
        """Whether the building has ended, well or not. There is no way to stop it."""
        if self._build is None:
            return True
        self._build.join(_BUILD_SECONDS)
        return not self._build.is_alive()


def serve(
    services: Sequence[Service],
    settings: ServerSettings,
    metrics: Metrics,
    announce: Callable[[Server], None] = _nothing,
) -> int:
    """Serves until SIGTERM or SIGINT, then leaves without breaking a call; a second signal ends the process at once.

    Args:
        announce: Called once, when everything is ready.

    Returns:
        The exit code: 0, or 1 where the server could not start; the reason is on stderr, in a line.
    """
    server = Server(services, settings, metrics)
    events: SimpleQueue[GramletError | signal.Signals | None] = SimpleQueue()
    with _signals(events.put):
        try:
            server.start(when_built=events.put)
        except GramletError as error:
            return _failed(error)
        event = events.get()
        if event is None:
            announce(server)
            event = events.get()
        if isinstance(event, GramletError):
            return _leave(server.stop(drain_seconds=0), _failed(event))
        assert event is not None
        _log.info("%s: no new calls; running ones have %g s", event.name, settings.drain_seconds)
        return _leave(server.stop(delay_seconds=settings.drain_delay_seconds), 0)


def _leave(stopped: bool, code: int) -> int:
    if not stopped:
        # Python would wait for the threads that still work; they are not worth waiting for any more.
        _log.warning("ending with work that could not be stopped")
        logging.shutdown()
        os._exit(code)
    return code


def _failed(error: GramletError) -> int:
    print(f"gramlet-server: {error}", file=sys.stderr)
    return 1


@contextmanager
def _signals(deliver: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Delivers the first signal; the second ends the process with the shell's code for it, such as 130 for Ctrl-C.

    A thread of its own waits for them, so that they are heard whatever the main thread is blocked in: Python runs
    signal handlers in the main thread only, and not while it waits for a lock that it had just begun to wait for.
    """
    expected = (signal.SIGTERM, signal.SIGINT)
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        seen = False
        while number := reader.recv(1):
            if number[0] not in expected:
                continue
            if seen:
                os._exit(128 + number[0])
            seen = True
            deliver(signal.Signals(number[0]))

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    # Every signal that has a handler, be it an empty one, is written to the socket as it arrives.
    handlers = {number: signal.signal(number, lambda *_: None) for number in expected}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()


def _channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    options = {
        "grpc.so_reuseport": 0,  # a taken port is an error, not a second server that gets every other connection
        "grpc.max_receive_message_length": settings.max_message_bytes,
        "grpc.max_send_message_length": settings.max_message_bytes,
        "grpc.keepalive_time_ms": _milliseconds(settings.keepalive_seconds),
        "grpc.keepalive_timeout_ms": _milliseconds(settings.keepalive_timeout_seconds),
        "grpc.keepalive_permit_without_calls": 1,
        # Clients may ping as well; gRPC's own limit of five minutes would end their connections as too many pings.
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    }
    if settings.max_connection_age_seconds:
        options["grpc.max_connection_age_ms"] = _milliseconds(settings.max_connection_age_seconds)
    if settings.max_connection_age_grace_seconds:
        options["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.max_connection_age_grace_seconds)
    return list(options.items())


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), 2**31 - 1)


def _check_free(host: str, port: int) -> None:
    """Finds out beforehand why an address cannot be had; gRPC only says that it cannot."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        # A name that is also IPv6 on a machine without: the other address is enough for gRPC.
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            where = format_address(host, port)
            raise FailedPrecondition(f"cannot listen on {where}: {error.strerror}; choose another --port") from None
