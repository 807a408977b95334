"""Weights are changed under traffic, as docs/weights.md says: no call fails, and no answer is of the wrong network."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import gramlet
import numpy as np
import pytest
from gramlet import Client, Features, Iteration, Result, RunState, Started, StylizeEvent
from gramlet.embed.types import StyleMap
from gramlet.types import Array

from tests.e2e.cluster import Cluster, Envoy, GramletServer

ITERATIONS = 12
SECONDS_PER_PICTURE = 0.05


@dataclass
class Fleet:
    """FeatureServices with the old weights (blue) and the new ones (green) behind Envoy, and a StylizeService.

    Attributes:
        old, new: Digests.
    """

    blue: GramletServer
    green: GramletServer
    edge: Envoy
    old: str
    new: str


@pytest.fixture(scope="module")
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    blue, green = (
        cluster.features(weights=f"random:{seed}", seconds_per_picture=SECONDS_PER_PICTURE) for seed in (1, 2)
    )
    for server in (blue, green):
        server.wait_until_ready()
    features = cluster.envoy(feature=[blue.address, green.address])
    features.wait_for_replicas(feature=2)
    store = cluster.folder / "weights"
    stylize = cluster.server("stylize", "embed", f"--features={features.address}", f"--store={store}")
    stylize.wait_until_ready()
    edge = cluster.envoy(feature=[blue.address, green.address], stylize=[stylize.address], embed=[stylize.address])
    edge.wait_for_replicas(feature=2, stylize=1, embed=1)
    digests = []
    for server in (blue, green):
        with Client(server.address) as client:
            digests.append(client.model().weights_digest)
    yield Fleet(blue, green, edge, *digests)
    for server in (stylize, blue, green):
        server.stop()


@pytest.fixture
def picture() -> Array:
    return np.random.default_rng(0).random((3, 48, 48), dtype=np.float32)


def test_a_pinned_client_reaches_its_network_only_even_without_patience(fleet: Fleet, picture: Array) -> None:
    for digest in (fleet.old, fleet.new):
        with Client(fleet.edge.address, weights_digest=digest, patience=0.0) as client:
            assert {client.model().weights_digest for _ in range(10)} == {digest}
            answers = [client.features(picture, stages=["conv1"], pooled=True) for _ in range(10)]
            answers += list(client.features([picture] * 20, stages=["conv1"], pooled=True))
            assert {answer.weights_digest for answer in answers if isinstance(answer, Features)} == {digest}
            assert len({answer.pooled["conv1"].tobytes() for answer in answers if isinstance(answer, Features)}) == 1
            events = list(client.stylize(picture, picture, size=48, iterations=2))
            assert digests_of(events) == {digest}


def test_without_a_pin_every_answer_says_which_network_it_is_of(fleet: Fleet, picture: Array) -> None:
    with Client(fleet.edge.address) as client:
        answers = [client.features(picture, stages=["conv1"], pooled=True) for _ in range(20)]
        by_digest = {(each.weights_digest, each.pooled["conv1"].tobytes()) for each in answers}
        assert {digest for digest, _ in by_digest} == {fleet.old, fleet.new}
        assert len(by_digest) == 2
        mapped = list(client.embed([picture + i / 64 for i in range(12)], method="pca"))[-1]
        assert isinstance(mapped, StyleMap)
        assert mapped.refused == ()
        assert mapped.weights_digest in (fleet.old, fleet.new)


def test_weights_that_no_replica_has_are_refused(fleet: Fleet, picture: Array) -> None:
    with Client(fleet.edge.address, weights_digest="0" * 64, patience=0.5) as client:
        for call in (
            client.model,
            lambda: client.features(picture, stages=["conv1"]),
            client.stylize(picture, picture, size=48, iterations=1, run_id="refused").result,
        ):
            with pytest.raises(gramlet.OtherWeights, match="000000000000 are wanted"):
                call()
        with pytest.raises(gramlet.NotFound):  # it was refused before any work
            client.run("refused").info()


def test_the_weights_are_changed_under_traffic(fleet: Fleet, picture: Array) -> None:
    """Steps of docs/weights.md: green is there beside blue; callers move; blue's runs end; blue goes away."""
    moved, done = Event(), Event()

    def call() -> list[str]:
        wrong = []
        with Client(fleet.edge.address) as client:
            while not done.is_set():
                wanted = fleet.new if moved.is_set() else fleet.old
                answer = client.with_options(weights_digest=wanted).features(picture, stages=["conv1"], pooled=True)
                wrong += [answer.weights_digest] * (answer.weights_digest != wanted)
        return wrong

    with ThreadPoolExecutor() as pool, Client(fleet.edge.address) as client:
        callers: list[Future[list[str]]] = [pool.submit(call) for _ in range(3)]
        old = client.with_options(weights_digest=fleet.old)
        run = old.stylize(picture, picture, size=48, iterations=ITERATIONS, detached=True, run_id="old-weights")
        begun = [next(run)]
        while not isinstance(begun[-1], Iteration):
            begun.append(next(run))
        moved.set()
        new = client.with_options(weights_digest=fleet.new)
        newer = pool.submit(lambda: list(new.stylize(picture, picture, size=48, iterations=ITERATIONS)))
        events = [*begun, *run]
        assert digests_of(events) == {fleet.old}
        assert [event.iteration for event in events if isinstance(event, Iteration)] == list(range(1, ITERATIONS + 1))
        assert client.run("old-weights").info().state is RunState.SUCCEEDED
        assert fleet.blue.stop() == 0
        assert digests_of(newer.result()) == {fleet.new}
        answer = new.features(picture, stages=["conv1"], pooled=True)
        done.set()
        assert [caller.result() for caller in callers] == [[], [], []]
    assert answer.weights_digest == fleet.new
    fleet.blue.start()
    fleet.blue.wait_until_ready()


def digests_of(events: list[StylizeEvent]) -> set[str]:
    """The networks that the events name; there are a start and a result."""
    found = [event for event in events if isinstance(event, Started | Result)]
    assert isinstance(found[0], Started)
    assert isinstance(found[-1], Result)
    return {event.weights_digest for event in found}
