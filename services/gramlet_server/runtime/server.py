"""The server of a process: it listens at once, builds its services, serves, and drains without breaking a call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import grpc
from gramlet.errors import GramletError
from grpc_reflection.v1alpha import reflection

from gramlet_server.runtime import health
from gramlet_server.runtime.build import Deferred, Service, ignore
from gramlet_server.runtime.calls import CallInterceptor
from gramlet_server.runtime.config import ServerSettings
from gramlet_server.runtime.errors import translated
from gramlet_server.runtime.incoming import Patience
from gramlet_server.runtime.interceptors import Admission, NameLimits, Observation
from gramlet_server.runtime.listen import channel_options, listen
from gramlet_server.runtime.memory import FreedMemory, is_short, limit_requests
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.silence import Silences
from gramlet_server.runtime.tokens import Tokens

# Threads beyond those of admitted calls, for reflection and refusals. Threads are made only when needed.
_SPARE_THREADS = 64
# Calls beyond those that have a thread: refused ones and health checks, which wait for theirs.
_SPARE_CALLS = 8192
# How long a cancelled call may take to end: one iteration of its work.
_CANCEL_SECONDS = 5.0
# How long `stop` waits for a build that is about to end.
_BUILD_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Server:
    """Services on one port, with health, reflection, metrics and the layers around every call.

    Attributes:
        port: The port that it listens on, once started.
        metrics_port: The port that it answers scrapes on, once started; None without metrics.
        admission: The calls that are running.
        tokens: Who may call.
    """

    def __init__(self, services: Sequence[Service], settings: ServerSettings, metrics: Metrics | None = None):
        self.port = 0
        self.metrics_port: int | None = None
        self._freed = FreedMemory()
        self._silences = Silences(is_short_of_memory=partial(is_short, settings.memory_bytes, self._freed))
        self.admission = Admission(settings.max_calls, self._silences)
        self._settings = settings
        self.tokens = Tokens(
            settings.token_file, settings.tokens, most_runs=settings.name_runs, most_bytes=settings.name_store_bytes
        )
        self._metrics = metrics or Metrics()
        self._services = [Deferred(service) for service in services]
        self._health = health.Health(self._silences)
        self._grpc = self._assemble()
        self._exits = ExitStack()
        self._build: threading.Thread | None = None
        self._is_complete = False
        self._readiness = threading.Lock()

    def start(self, when_built: Callable[[GramletError | None], None] = ignore) -> None:
        """Listens, and starts to build the services.

        Args:
            when_built: Called from another thread: with None when all services are built; with the error of a service
                that could not be built, or that failed for good later.

        Raises:
            FailedPrecondition: The address is taken, or not of this machine.
            InvalidInput: The certificates cannot be used.
        """
        self.port = listen(self._grpc, self._settings)
        self.metrics_port = self._exits.enter_context(
            self._metrics.served(
                "127.0.0.1" if self._settings.shares_port else self._settings.host, self._settings.metrics_port
            )
        )
        self._grpc.start()
        self._freed.start()
        self._exits.callback(self._freed.close)
        self.tokens.keep_reading()
        self._build = threading.Thread(target=self._build_services, args=[when_built], name="build", daemon=True)
        self._build.start()

    def stop(self, drain_seconds: float | None = None, delay_seconds: float = 0.0) -> bool:
        """Drains: reports NOT_SERVING, refuses new calls, lets running calls finish, cancels those that take too long.

        Args:
            drain_seconds: How long running calls may take; None: as set.
            delay_seconds: How long to go on serving while reporting NOT_SERVING, so that balancers turn away.

        Returns:
            Whether everything has ended. If not, something cannot be stopped, and the process has to end with it.
        """
        self._health.enter_graceful_shutdown()
        time.sleep(delay_seconds)
        seconds = self._settings.drain_seconds if drain_seconds is None else drain_seconds
        ended = self._grpc.stop(seconds)
        self._health.end_watches()
        # Services that were built last use those that were built first.
        built = [deferred.built for deferred in reversed(self._services) if deferred.built]
        for service in built:
            service.drain()
        if not ended.wait(seconds) and not self.admission.wait_until_idle(0):
            _log.warning("calls are still running after %g s: they are cancelled", seconds)
        # For gRPC a cancelled call has ended, but the thread that works for it may still run.
        if not (ended.wait(_CANCEL_SECONDS) and self.admission.wait_until_idle(_CANCEL_SECONDS)):
            _log.warning("ending with work that could not be stopped")
            return False
        if not self._is_built():
            return False
        for service in built:
            service.close()
        self._exits.close()
        self.tokens.close()
        self._health.close()
        self._silences.close()
        return True

    def _assemble(self) -> grpc.Server:
        settings = self._settings
        interceptor = CallInterceptor(
            outer=[Observation(self._metrics), translated],
            inner=[NameLimits(settings.name_calls, settings.name_calls_per_second), self.admission],
            gate=self.tokens,
            silences=self._silences,
            patience=Patience(settings.first_message_seconds, settings.idle_seconds),
        )
        threads = settings.max_calls + _SPARE_THREADS
        server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="call"),
            interceptors=[interceptor],
            options=channel_options(settings),
            maximum_concurrent_rpcs=threads + _SPARE_CALLS,
        )
        names = [deferred.service.name for deferred in self._services]
        for deferred in self._services:
            deferred.service.add(deferred, server)
        self._health.add_to(server, names)
        reflection.enable_server_reflection([*names, health.NAME, reflection.SERVICE_NAME], server)
        return server

    def _build_services(self, when_built: Callable[[GramletError | None], None]) -> None:
        try:
            for deferred in self._services:
                deferred.check()
            for deferred in self._services:
                built = deferred.build()
                built.on_failure(lambda error: self._fail(error, when_built))
                self._set_readiness(deferred, None)
                built.on_readiness(partial(self._set_readiness, deferred))
        except GramletError as error:
            when_built(error)
        else:
            limit_requests(self._settings.memory_bytes)
            self._is_complete = True
            self._report_overall()
            when_built(None)

    def _set_readiness(self, deferred: Deferred, lacks: GramletError | None) -> None:
        deferred.lacks = lacks
        self._health.set_serving(deferred.service.name, lacks is None)
        self._report_overall()

    def _report_overall(self) -> None:
        """The server serves once all services are built, as long as one of them can work."""
        with self._readiness:
            ready = self._is_complete and any(deferred.is_ready for deferred in self._services)
            self._health.set_serving(health.SERVER, ready)

    def _fail(self, error: GramletError, report: Callable[[GramletError], None]) -> None:
        """Reports NOT_SERVING for all services from now on."""
        _log.error("%s", error)
        self._health.enter_graceful_shutdown()
        report(error)

    def _is_built(self) -> bool:
        """Whether the build has ended, successfully or not. It cannot be interrupted."""
        if self._build is None:
            return True
        self._build.join(_BUILD_SECONDS)
        return not self._build.is_alive()
