"""Runs outlive their callers and their replicas: two StylizeServices share a store and a FeatureService."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import gramlet
import pytest
from gramlet import Client, Iteration, RemoteProgress, Result, RunKind, RunState, StylizeEvent
from gramlet.types import Pixels

from tests.e2e.cluster import Cluster, GramletServer, ready, wait_until

ITERATIONS = 24
LEASE_SECONDS = 3
# Slow enough that what is done to a run in its middle is done in its middle.
SECONDS_PER_PICTURE = 0.2


@pytest.fixture(scope="module")
def feature(cluster: Cluster) -> Iterator[GramletServer]:
    server = cluster.features(seconds_per_picture=SECONDS_PER_PICTURE)
    with ready(server):
        yield server


@pytest.fixture(scope="module")
def replicas(cluster: Cluster, feature: GramletServer) -> Iterator[list[GramletServer]]:
    flags = (f"--features={feature.address}", f"--store={cluster.folder / 'runs'}", f"--lease-seconds={LEASE_SECONDS}")
    servers = [cluster.server("stylize", *flags, "--state-seconds=0.5") for _ in range(2)]
    with ready(*servers):
        yield servers


Order = Callable[..., gramlet.Stylizing]


@pytest.fixture(scope="module")
def ordered(content: Pixels, style: Pixels) -> Order:
    """Orders a stylization; nothing is sent before the first event is asked for."""

    def order(client: Client, run_id: str, iterations: int = ITERATIONS, **options: bool) -> gramlet.Stylizing:
        return client.stylize(content, style, size=64, iterations=iterations, run_id=run_id, **options)

    return order


@pytest.fixture(scope="module")
def undisturbed(replicas: list[GramletServer], ordered: Order) -> Result:
    with Client(replicas[0].address) as client:
        return ordered(client, "undisturbed").result()


def iterations(events: list[StylizeEvent]) -> list[int]:
    return [event.iteration for event in events if isinstance(event, Iteration)]


def until_iteration(events: gramlet.Stylizing, number: int) -> None:
    next(event for event in events if isinstance(event, Iteration) and event.iteration == number)


def test_a_detached_run_survives_the_death_of_its_replica_with_nobody_connected(
    replicas: list[GramletServer], ordered: Order, undisturbed: Result
) -> None:
    with Client(replicas[0].address) as client, ordered(client, "killed", detached=True) as events:
        until_iteration(events, 7)
    replicas[0].kill()
    with Client(replicas[1].address) as client:
        run = client.run("killed")
        wait_until(lambda: run.info().state is RunState.SUCCEEDED, LEASE_SECONDS + 30)
        details = run.details()
        assert details.run.error is None
        assert details.result is not None
        assert details.result.png == undisturbed.png
    replicas[0].start()
    replicas[0].wait_until_ready()


def test_a_detached_run_goes_on_elsewhere_when_its_replica_shuts_down(
    replicas: list[GramletServer], ordered: Order, undisturbed: Result
) -> None:
    with Client(replicas[0].address) as client, ordered(client, "drained", detached=True) as events:
        until_iteration(events, 7)
    assert replicas[0].stop() == 0
    with Client(replicas[1].address) as client:
        result = client.run("drained").result()
        assert isinstance(result, Result)
        assert result.png == undisturbed.png
    replicas[0].start()
    replicas[0].wait_until_ready()


def test_two_watchers_on_two_replicas_change_nothing_and_get_the_same_result(
    replicas: list[GramletServer], ordered: Order, undisturbed: Result
) -> None:
    with Client(replicas[0].address) as here, Client(replicas[1].address) as there:
        with ordered(here, "watched", detached=True) as events:
            until_iteration(events, 3)
        with ThreadPoolExecutor() as pool:
            watching = [pool.submit(list, client.run("watched").watch()) for client in (here, there)]
            local, remote = (future.result() for future in watching)
    assert iterations(local) == list(range(iterations(local)[0], ITERATIONS + 1))
    assert any(isinstance(event, RemoteProgress) and event.total == ITERATIONS for event in remote)
    assert iterations(remote) == []
    assert [events[-1].png for events in (local, remote)] == [undisturbed.png] * 2


@pytest.mark.parametrize("where", [0, 1])
def test_who_resumes_a_running_run_joins_it_and_no_iteration_is_done_twice(
    replicas: list[GramletServer], ordered: Order, undisturbed: Result, where: int
) -> None:
    with Client(replicas[0].address) as client, Client(replicas[where].address) as other:
        events = ordered(client, f"joined-{where}")
        until_iteration(events, 3)
        with ThreadPoolExecutor() as pool:
            joining = pool.submit(list, other.resume(f"joined-{where}"))
            mine, theirs = list(events), joining.result()
    assert iterations(mine) == list(range(4, ITERATIONS + 1))
    assert iterations(theirs) == ([] if where else list(range(iterations(theirs)[0], ITERATIONS + 1)))
    assert [event.png for event in (mine[-1], theirs[-1]) if isinstance(event, Result)] == [undisturbed.png] * 2


def test_a_run_is_stopped_from_another_replica_and_resumed(
    replicas: list[GramletServer], ordered: Order, undisturbed: Result
) -> None:
    with Client(replicas[0].address) as client, Client(replicas[1].address) as other:
        events = ordered(client, "stopped", detached=True)
        until_iteration(events, 6)
        info = other.run("stopped").stop()
        assert info.state is RunState.STOPPED
        assert 0 < info.progress.done < ITERATIONS
        with pytest.raises(gramlet.Cancelled, match="was stopped"):
            list(events)
        assert other.resume("stopped").result().png == undisturbed.png


def test_an_attached_run_is_stopped_when_its_caller_leaves(replicas: list[GramletServer], ordered: Order) -> None:
    with Client(replicas[0].address) as client:
        with ordered(client, "left") as events:
            until_iteration(events, 2)
        run = client.run("left")
        wait_until(lambda: run.info().state is RunState.STOPPED)


def test_a_failed_run_gives_its_error_to_who_asks_later(replicas: list[GramletServer], ordered: Order) -> None:
    with Client(replicas[0].address) as client:
        assert client.run("undisturbed").info().error is None
        with pytest.raises(gramlet.NotFound):
            client.run("nobodys").info()
        with pytest.raises(gramlet.NotFound):
            list(client.run("nobodys").watch())


def test_runs_are_listed_newest_first_and_deleted_with_every_key(
    cluster: Cluster, replicas: list[GramletServer], ordered: Order
) -> None:
    with Client(replicas[0].address) as client, Client(replicas[1].address) as other:
        for number in range(3):
            ordered(client, f"listed-{number}", iterations=1).result()
        with ordered(client, "deleted", iterations=5000, detached=True, keep_inputs=True) as events:
            until_iteration(events, 6)
        newest = [run.run_id for run in other.runs(kind=RunKind.STYLIZE, page_size=2)][:4]
        assert newest == ["deleted", "listed-2", "listed-1", "listed-0"]
        other.run("deleted").delete()
        assert "deleted" not in [run.run_id for run in client.runs()]
        assert all(run.bytes < 500_000 for run in client.runs(state="succeeded"))
    keys = [str(path) for path in (cluster.folder / "runs").rglob("*") if path.is_file()]
    assert [key for key in keys if "deleted" in key] == []
