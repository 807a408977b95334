"""The store's promises, kept by a real S3 server, and a stylization that outlives its process there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from gramlet import Client
from gramlet.errors import Unavailable
from gramlet.stylize.types import Checkpoint, Iteration, RemoteProgress, Result, Started
from gramlet_server.runs.store import Store

from tests.e2e.cluster import Cluster, GramletServer, SeaweedFS, is_serving, variables, wait_until
from tests.runs.test_damaged import (  # noqa: F401
    test_one_damaged_value_ends_no_list,
    test_values_that_are_lost_are_not_waited_for,
    test_what_is_damaged_says_so_itself,
)
from tests.runs.test_store import (  # noqa: F401  # collected here again, with the store below
    test_a_missing_key_is_not_found_and_deleting_it_is_no_error,
    test_a_run_that_was_taken_over_cannot_be_written_by_its_first_owner,
    test_a_value_comes_back_whole,
    test_names_are_taken_once_and_checked,
    test_of_many_creators_of_one_key_exactly_one_wins,
    test_stale_runs_are_swept_and_fresh_ones_kept,
    test_the_copies_of_earlier_epochs_are_dropped,
)

SERVICES = "gramlet.stylize.v1.StylizeService", "gramlet.embed.v1.EmbedService"
FAILS = "the store of the server fails; the log of the server says why"


@pytest.fixture
def store(seaweedfs: SeaweedFS) -> Iterator[Store]:
    with variables(seaweedfs.variables):
        yield Store.open(f"s3://gramlet/{uuid.uuid4().hex}")


def test_a_killed_stylization_is_resumed_by_another_process_on_another_port(
    cluster: Cluster, replicas: list[GramletServer], seaweedfs: SeaweedFS
):
    def stylizer() -> GramletServer:
        arguments = f"--features={replicas[0].address}", "--store=s3://gramlet/stylize"
        return cluster.server("stylize", *arguments, environment=seaweedfs.variables)

    content, style = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    # Many iterations: a state waits until it is cheap for the time so far.
    settings = {"size": 64, "iterations": 120, "state_seconds": 0.2}
    first, second = stylizer(), stylizer()
    first.wait_until_ready()
    second.wait_until_ready()
    with Client(first.address) as at_first, Client(second.address) as at_second:
        undisturbed = list(at_second.stylize(content, style, **settings))

        disturbed = at_first.with_options(patience=0.0).stylize(content, style, run_id="outlives", **settings)
        while not (isinstance(event := next(disturbed), Checkpoint) and event.iteration):
            pass
        first.kill()
        with pytest.raises(Unavailable):
            disturbed.result()
        # Until the lease of the killed process has ended, the second one only reports the progress in the store.
        events = at_second.resume("outlives")
        resumed = [event for event in events if not isinstance(event, RemoteProgress)]

    assert isinstance(resumed[0], Started)
    assert resumed[0].iteration >= event.iteration
    assert losses(resumed) == losses(undisturbed)[resumed[0].iteration :]
    assert result(resumed).png == result(undisturbed).png


def test_without_its_store_a_service_does_not_serve_and_with_it_it_does_again(
    cluster: Cluster, replicas: list[GramletServer]
) -> None:
    store = cluster.seaweedfs()
    store.kill()
    arguments = f"--features={replicas[0].address}", "--store=s3://secret-bucket/prefix"
    server = cluster.server("stylize", "embed", *arguments, environment=store.variables)
    wait_until(lambda: reasons_of(server) == dict.fromkeys(SERVICES, FAILS))
    assert not is_serving(server.address)

    content = np.zeros((3, 32, 32), dtype=np.float32)
    with Client(server.address) as client:
        waiting = client.stylize(content, content, size=32, iterations=1)
        store.start()
        assert waiting.result().png
        assert client.status().is_serving

    store.kill()
    with Client(server.address, patience=0.0) as client:
        with pytest.raises(Unavailable) as failed:  # which makes the server look at its store at once
            client.stylize(content, content, size=32, iterations=1).result()
        wait_until(lambda: reasons_of(server) == dict.fromkeys(SERVICES, FAILS))
    assert failed.value.message == FAILS
    log = server.log.read_text()
    assert f"127.0.0.1:{store.ports['s3']}" in log
    assert "Connection refused" in log
    assert "Debug source" not in log  # the types of the library that failed, over tens of lines
    server.kill()


def reasons_of(server: GramletServer) -> object:
    with Client(server.address) as client:
        try:
            return client.status().reasons
        except Unavailable:  # it does not listen yet
            return None


def losses(events: list[object]) -> list[tuple[int, float]]:
    return [(event.iteration, event.loss) for event in events if isinstance(event, Iteration)]


def result(events: list[object]) -> Result:
    assert isinstance(events[-1], Result)
    return events[-1]
