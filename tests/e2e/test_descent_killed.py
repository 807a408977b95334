"""FeatureServices killed under descents: the caller sees every iteration once, and the same bits.

GRAMLET_LONG_TESTS=1 kills one of two every three seconds for a minute, under six descents of three optimizers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import pytest
from gramlet import Client
from gramlet.feature.descent_types import (
    DescentEvent,
    DescentIteration,
    DescentRecovered,
    DescentSettings,
    DescentStart,
    LineSearch,
    Optimizer,
    RecoveryReason,
)
from gramlet_server.feature.engine import Engine

from tests.e2e.cluster import Cluster, GramletServer, kill_in_turns, ready
from tests.e2e.conftest import LONG
from tests.feature.descent_cases import OBJECTIVE, assert_same, run

pytestmark = pytest.mark.timeout(1200 if LONG else 300)
EVERY_SECONDS = 3.0
SETTINGS = {
    "L-BFGS": DescentSettings(history_size=20),
    "strong Wolfe": DescentSettings(history_size=5, line_search=LineSearch.STRONG_WOLFE),
    "Adam": DescentSettings(optimizer=Optimizer.ADAM, learning_rate=0.02),
}


@pytest.fixture(scope="module")
def features(cluster: Cluster) -> Iterator[list[GramletServer]]:
    with ready(*(cluster.features(seconds_per_picture=0.05) for _ in range(2))) as servers:
        yield servers


def start(settings: DescentSettings, iterations: int) -> DescentStart:
    return DescentStart(objective=OBJECTIVE, settings=settings, iterations=iterations, state_seconds=0.2)


def descend(
    features: Sequence[GramletServer],
    order: DescentStart,
    during: Callable[[DescentEvent], None] = lambda _: None,
) -> list[DescentEvent]:
    events = []
    addresses = ",".join(server.address for server in features)
    # As long as a StylizeService waits: on a busy machine a server takes its time to start.
    with Client(addresses, patience=120.0) as client, client.descend(order) as descent:
        for event in descent:
            events.append(event)
            during(event)
    return events


def test_killed_servers_cost_descents_nothing(engine: Engine, features: list[GramletServer]) -> None:
    orders = [start(settings, 30) for settings in SETTINGS.values()]
    begun = [threading.Event() for _ in orders[1:]]

    def kill(event: DescentEvent) -> None:
        if isinstance(event, DescentIteration) and event.iteration == 9:
            # A client that no server has ever answered rightly gives up at once.
            assert all(descent.wait(timeout=60) for descent in begun)
            for server in features:
                server.kill()
                server.start()

    killing = [kill, *(lambda _, descent=descent: descent.set() for descent in begun)]
    with ThreadPoolExecutor(len(orders)) as pool:
        found = list(pool.map(partial(descend, features), orders, killing))
    for events, order in zip(found, orders, strict=True):
        assert_same(events, run(engine, order))
    reasons = [event.reason for events in found for event in events if isinstance(event, DescentRecovered)]
    assert set(reasons) == {RecoveryReason.RECONNECTED}


@pytest.mark.skipif(not LONG, reason="takes minutes; GRAMLET_LONG_TESTS=1 runs it")
def test_a_minute_of_kills_costs_six_descents_nothing(engine: Engine, features: list[GramletServer]) -> None:
    orders = [start(settings, 300) for settings in SETTINGS.values() for _ in range(2)]
    done = threading.Event()
    with ThreadPoolExecutor(len(orders) + 1) as pool:
        killing = pool.submit(kill_in_turns, features, EVERY_SECONDS, done)
        descents = [pool.submit(descend, features, order) for order in orders]
        wait(descents)
        done.set()
        kills = killing.result()
        found = [descent.result() for descent in descents]
    reconnections = sum(isinstance(event, DescentRecovered) for events in found for event in events)
    print(f"{kills} kills, {reconnections} reconnections")
    assert kills >= 3
    assert reconnections >= 3
    for events, order in zip(found, orders, strict=True):
        assert_same(events, run(engine, order))
