"""The store's promises on a local directory; tests/e2e keeps them on S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from gramlet.errors import Aborted, AlreadyExists, InvalidInput, NotFound
from gramlet_server.runs.retention import keep_sweeping, sweep_cache, sweep_runs
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store

from tests.e2e.cluster import wait_until


def test_a_value_comes_back_whole(store: Store) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    assert [(entry.key, entry.size) for entry in store.list("a")] == [("a/b", 3)]


def test_a_missing_key_is_not_found_and_deleting_it_is_no_error(store: Store) -> None:
    store.delete("nothing")
    with pytest.raises(NotFound, match="nothing"):
        store.get("nothing")


def test_of_many_creators_of_one_key_exactly_one_wins(store: Store) -> None:
    def create(n: int) -> bool:
        try:
            store.create("key", str(n).encode())
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(create, range(16)))
    assert outcomes.count(True) == 1
    assert store.get("key") == str(outcomes.index(True)).encode()


@pytest.mark.parametrize("address", ["s3://", "gs://bucket", "/proc/nowhere"])
def test_an_address_that_cannot_be_opened_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as error:
        Store.open(address)
    assert error.value.field == "--store"


def test_anybody_adds_to_the_log_of_a_run_and_no_number_is_taken_twice(store: Store) -> None:
    owner = Run.create(store, "stylize", "logged")
    owner.put("job", b"job")
    other = Run.find(store, "stylize", "logged")
    other.append("changes", 1, b"one")
    owner.append("changes", 2, b"two")
    with pytest.raises(AlreadyExists):
        other.append("changes", 2, b"also two")
    assert other.log("changes") == [b"one", b"two"]
    assert Run.take_over(store, "stylize", "logged").log("changes", after=1) == [b"two"]
    assert (other.has("job"), other.has("result"), other.log("nothing")) == (True, False, [])
    with pytest.raises(NotFound):
        Run.find(store, "stylize", "nobodys")


def test_a_run_that_was_taken_over_cannot_be_written_by_its_first_owner(store: Store) -> None:
    first = Run.create(store, "stylize", "r1")
    first.put("checkpoint", b"first")
    second = Run.take_over(store, "stylize", "r1")
    assert second.get("checkpoint") == b"first"
    with pytest.raises(Aborted):
        first.put("checkpoint", b"late")
    second.put("checkpoint", b"second")
    assert Run.take_over(store, "stylize", "r1").get("checkpoint") == b"second"


def test_what_is_to_be_kept_stays_and_an_old_cache_goes(store: Store) -> None:
    for run_id in ("finished", "unfinished"):
        Run.create(store, "embed", run_id).put("plan", b"1")
    for key in ("features/space/a.keys", "features/space/a.npy", "heads/bees/00000001.json"):
        store.put(key, b"1")
    later = datetime.now(UTC) + timedelta(days=40)
    month = timedelta(days=30)
    assert sweep_runs(store, "embed", month, now=later, keeps=lambda run_id: run_id == "finished") == 1
    assert sweep_cache(store, "features", month) == 0
    assert sweep_cache(store, "features", month, now=later) == 2
    left = {entry.key.split("/")[2] for entry in (*store.list("runs"), *store.list("heads"), *store.list("features"))}
    assert left == {"finished", "00000001.json"}


def test_the_copies_of_earlier_epochs_are_dropped(store: Store) -> None:
    Run.create(store, "stylize", "r1").put("checkpoint", b"first")
    Run.take_over(store, "stylize", "r1").put("checkpoint", b"second")
    assert [entry.size for entry in store.list("runs") if "/checkpoint." in entry.key] == [6]


def test_names_are_taken_once_and_checked(store: Store) -> None:
    Run.create(store, "stylize", "r1")
    with pytest.raises(AlreadyExists):
        Run.create(store, "stylize", "r1")
    with pytest.raises(NotFound):
        Run.take_over(store, "stylize", "r2")
    assert Run.create(store, "stylize").run_id
    for name in ("../escape", "a" * 65, "a/b"):
        with pytest.raises(InvalidInput):
            Run.create(store, "stylize", name)


def test_stale_runs_are_swept_and_fresh_ones_kept(store: Store) -> None:
    Run.create(store, "stylize", "r1")
    assert sweep_runs(store, "stylize", timedelta(hours=1)) == 0
    assert sweep_runs(store, "stylize", timedelta(0)) == 1
    assert store.list("runs") == []


def test_a_server_sweeps_as_long_as_it_lives(store: Store) -> None:
    Run.create(store, "stylize", "old")
    Run.create(store, "maps", "kept")
    keep_sweeping(store, "stylize", timedelta(0))
    wait_until(lambda: not store.list("runs/stylize"))
    assert store.list("runs/maps")
