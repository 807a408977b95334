"""The Prometheus metrics of a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from gramlet.errors import FailedPrecondition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from gramlet_server.telemetry import Observer

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

# A status call takes a millisecond, a stylization up to an hour.
_REQUEST_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BATCH_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics(Observer):
    """The metrics of one process. The layers around calls use its attributes; services report to it as an Observer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("gramlet_requests", "Calls that ended.", "method", "code")
        self.caller_requests = self._counter(
            "gramlet_caller_requests", "Calls that ended, by the name of their token.", "caller", "code"
        )
        self.request_seconds = Histogram(
            "gramlet_request_seconds",
            "How long calls took; streams, from open to end.",
            ["method"],
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self.in_flight = self._gauge("gramlet_requests_in_flight", "Calls under way.", "method")
        self._queue_length = self._gauge("gramlet_queue_length", "Pictures that wait for the device.")
        self._batch_pictures = Histogram(
            "gramlet_batch_pictures",
            "Pictures in one pass over the device.",
            ["kind"],
            buckets=_BATCH_PICTURES,
            registry=self.registry,
        )
        self._device_seconds = self._counter("gramlet_device_seconds", "Seconds that the device worked.", "kind")
        self._gradients = self._counter("gramlet_gradient_evaluations", "Evaluations of loss and gradient.")
        self._cache = self._counter("gramlet_cache_requests", "Look-ups in a cache.", "cache", "outcome")
        self._backlog = self._gauge("gramlet_device_backlog_seconds", "Estimate of accepted work.")
        self._runs = self._gauge("gramlet_runs", "Pieces of long work, running and queued.", "service", "state")

    def queue_length(self, pictures: int) -> None:
        self._queue_length.set(pictures)

    def batch(self, kind: str, pictures: int, device_seconds: float) -> None:
        self._batch_pictures.labels(kind).observe(pictures)
        self._device_seconds.labels(kind).inc(device_seconds)
        if kind == "gradient":
            self._gradients.inc(pictures)

    def cache(self, name: str, hit: bool) -> None:
        self._cache.labels(name, "hit" if hit else "miss").inc()

    def gradients(self, count: int) -> None:
        self._gradients.inc(count)

    def backlog(self, seconds: Callable[[], float]) -> None:
        self._backlog.set_function(seconds)

    def runs(self, service: str, running: int, queued: int) -> None:
        self._runs.labels(service, "running").set(running)
        self._runs.labels(service, "queued").set(queued)

    def served(self, host: str, port: int | None) -> AbstractContextManager[int | None]:
        """Answers scrapes for as long as the context lasts; see `served`."""
        return served(self.registry, host, port)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int | None) -> Iterator[int | None]:
    """Answers scrapes at http://host:port/metrics for as long as the context lasts.

    Args:
        registry: The metrics.
        host: The address to listen on.
        port: 0 takes any free one. None: there is no endpoint.

    Yields:
        The port, or None.

    Raises:
        FailedPrecondition: The port is taken.
    """
    if port is None:
        yield None
        return
    try:
        http, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        message = f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another --metrics-port"
        raise FailedPrecondition(message) from None
    try:
        yield http.server_port
    finally:
        _stop(http, thread)


def _stop(http: WSGIServer, thread: Thread) -> None:
    http.shutdown()
    http.server_close()
    thread.join()
