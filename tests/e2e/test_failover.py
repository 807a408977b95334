"""FeatureServices behind Envoy, killed and restarted under load: no work is lost, and none comes out different."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import pytest
from gramlet import Client
from gramlet.errors import GramletError
from gramlet.feature.types import Features
from gramlet.stylize.types import Iteration, Recovered, RecoveryReason, Result
from gramlet.types import Array

from tests.e2e.cluster import Cluster, Envoy, GramletServer, kill_in_turns, ready
from tests.e2e.conftest import LONG

STYLIZATIONS = 6
ITERATIONS = 400 if LONG else 50
pytestmark = pytest.mark.timeout(1200 if LONG else 300)
EVERY_SECONDS = 3.0 if LONG else 1.5


@dataclass
class Outcome:
    """What the work of this file came to."""

    losses: list[list[tuple[int, float]]]
    pngs: list[bytes]
    reconnections: int
    features: list[Features | GramletError]


class Work:
    """Six stylizations and an extraction of two hundred pictures, all at once, each in a thread of its own."""

    def __init__(self, stylize: GramletServer, features: str, pictures: list[Array]) -> None:
        self.server = stylize
        self._stylize = Client(stylize.address)
        self._features = Client(features)
        self._pictures = pictures
        self._pool = ThreadPoolExecutor(STYLIZATIONS + 1)
        self.reconnections = 0

    def start(self) -> tuple[list[Future[list[object]]], Future[list[Features | GramletError]]]:
        stylizations = [self._pool.submit(self._one, number) for number in range(STYLIZATIONS)]
        return stylizations, self._pool.submit(self._extract)

    def run(self, meanwhile: Callable[[threading.Event], None]) -> Outcome:
        """Does the work, and something else until it is done."""
        stylizations, extraction = self.start()
        done = threading.Event()
        disturbing = ThreadPoolExecutor(1).submit(meanwhile, done)
        wait([*stylizations, extraction])
        done.set()
        disturbing.result()
        events = [stylization.result() for stylization in stylizations]
        results = [run[-1] for run in events]
        assert all(isinstance(result, Result) for result in results)
        return Outcome(
            losses=[[(e.iteration, e.loss) for e in run if isinstance(e, Iteration)] for run in events],
            pngs=[result.png for result in results if isinstance(result, Result)],
            reconnections=sum(
                isinstance(event, Recovered) and event.reason is RecoveryReason.RECONNECTED
                for run in events
                for event in run
            ),
            features=extraction.result(),
        )

    def close(self) -> None:
        self._stylize.close()
        self._features.close()
        self._pool.shutdown()

    def _one(self, number: int) -> list[object]:
        content, style = np.random.default_rng(number).random((2, 3, 48, 48), dtype=np.float32)
        # A state more often than the StylizeService is killed, or nothing would be kept from one kill to the next.
        return list(self._stylize.stylize(content, style, size=48, iterations=ITERATIONS, state_seconds=1))

    def _extract(self) -> list[Features | GramletError]:
        return list(self._features.features(self._pictures, stages=["layer1"], gram=True, pooled=True))


@pytest.fixture(scope="module")
def work(cluster: Cluster, edge: Envoy, pictures: list[Array]) -> Iterator[Work]:
    stylize = cluster.server(
        "stylize", f"--features={edge.address}", f"--store={cluster.folder / 'failover'}", "--stylize-runs=6"
    )
    with ready(stylize):
        work = Work(stylize, edge.address, pictures)
        yield work
        work.close()


@pytest.fixture(scope="module")
def undisturbed(work: Work) -> Outcome:
    outcome = work.run(lambda done: None)
    assert outcome.reconnections == 0
    return outcome


def assert_equal(outcome: Outcome, expected: Outcome) -> None:
    for losses in outcome.losses:
        assert [iteration for iteration, _ in losses] == [*range(1, ITERATIONS + 1)]
    assert outcome.losses == expected.losses
    assert outcome.pngs == expected.pngs
    assert len(outcome.features) == len(expected.features)
    for features, same in zip(outcome.features, expected.features, strict=True):
        assert isinstance(features, Features)
        assert isinstance(same, Features)
        # The last bits of a convolution depend on how many pictures share a pass.
        np.testing.assert_allclose(features.grams["layer1"], same.grams["layer1"], rtol=1e-4, atol=1e-4)


def killed(work: Work, servers: list[GramletServer], replicas: list[GramletServer], edge: Envoy) -> Outcome:
    """What the work comes to while one server after another is killed."""
    kills = 0

    def kill(done: threading.Event) -> None:
        nonlocal kills
        kills = kill_in_turns(servers, EVERY_SECONDS, done)

    try:
        outcome = work.run(kill)
    finally:
        for server in servers:
            server.wait_until_ready()
        edge.wait_for_replicas(feature=len(replicas))
    print(f"{kills} kills, {outcome.reconnections} reconnections")
    assert kills >= 1
    return outcome


def test_replicas_killed_one_after_another_lose_and_change_nothing(
    work: Work, undisturbed: Outcome, replicas: list[GramletServer], edge: Envoy
):
    outcome = killed(work, replicas, replicas, edge)
    assert outcome.reconnections >= 1
    assert_equal(outcome, undisturbed)


@pytest.mark.skipif(not LONG, reason="takes minutes; GRAMLET_LONG_TESTS=1 runs it")
def test_neither_does_the_stylize_service_between_them(
    work: Work, undisturbed: Outcome, replicas: list[GramletServer], edge: Envoy
):
    servers = [server for replica in replicas for server in (replica, work.server)]
    assert_equal(killed(work, servers, replicas, edge), undisturbed)


def test_a_rolling_restart_fails_no_call(
    work: Work, undisturbed: Outcome, replicas: list[GramletServer], edge: Envoy, pictures: list[Array]
):
    """The callers beside the work have no patience: what Envoy and the draining server cannot save, they would see."""
    calls: list[Features] = []
    restarted = threading.Event()

    def impatient() -> None:
        with Client(edge.address, patience=0.0) as client:
            while not restarted.is_set():
                client.model()
                calls.append(client.features(pictures[0], stages=["conv1"], pooled=True))

    def roll(done: threading.Event) -> None:
        with ThreadPoolExecutor(2) as pool:
            callers = [pool.submit(impatient) for _ in range(2)]
            try:
                for replica in replicas:
                    assert replica.stop() == 0
                    replica.start()
                    replica.wait_until_ready()
                    edge.wait_for_replicas(feature=3)
            finally:
                restarted.set()
            for caller in callers:
                caller.result()

    outcome = work.run(roll)
    assert len(calls) > 20
    assert_equal(outcome, undisturbed)
