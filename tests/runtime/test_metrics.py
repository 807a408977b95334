from __future__ import annotations

import urllib.request
from typing import Any

from gramlet_server.runtime.metrics import Metrics
from gramlet_server.telemetry import Observer


def test_a_scrape_shows_calls_and_device(serving: Any) -> None:
    metrics = Metrics()
    observer: Observer = metrics
    with serving(metrics=metrics, metrics_port=0) as running:
        running.call("unary_unary")
        observer.queue_length(3)
        observer.batch("extract", 8, 0.5)
        observer.batch("gradient", 2, 0.25)
        observer.cache("targets", hit=True)
        observer.cache("targets", hit=False)
        observer.runs("stylize", running=2, queued=5)
        with urllib.request.urlopen(f"http://127.0.0.1:{running.server.metrics_port}/metrics") as reply:
            scraped = reply.read().decode().splitlines()
    for line in [
        'gramlet_requests_total{code="OK",method="/test.Echo/unary_unary"} 1.0',
        'gramlet_request_seconds_count{method="/test.Echo/unary_unary"} 1.0',
        "gramlet_queue_length 3.0",
        'gramlet_batch_pictures_sum{kind="extract"} 8.0',
        'gramlet_device_seconds_total{kind="extract"} 0.5',
        'gramlet_device_seconds_total{kind="gradient"} 0.25',
        "gramlet_gradient_evaluations_total 2.0",
        'gramlet_cache_requests_total{cache="targets",outcome="hit"} 1.0',
        'gramlet_cache_requests_total{cache="targets",outcome="miss"} 1.0',
        'gramlet_runs{service="stylize",state="running"} 2.0',
        'gramlet_runs{service="stylize",state="queued"} 5.0',
    ]:
        assert line in scraped


def test_without_a_port_nothing_listens(serving: Any) -> None:
    with serving() as running:
        assert running.server.metrics_port is None
