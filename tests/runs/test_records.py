"""The index lists every run once, newest first, page by page, and a lease says who executes a run."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from gramlet.errors import Aborted, InvalidInput
from gramlet.run.types import RunFilter, RunInfo, RunKind, RunState
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.run import Run


def put(records: Records, run_id: str, created: float, kind: RunKind = RunKind.STYLIZE, **changes: object) -> Run:
    """A run in the store with such a record."""
    run = Run.create(records.store, kind.value, run_id)
    info = RunInfo(run_id, kind, created, **{"state": RunState.SUCCEEDED, **changes})  # type: ignore[arg-type]
    records.begin(run, Record(info))
    return run


def pages(records: Records, wanted: RunFilter) -> list[list[str]]:
    """The ids on each page."""
    found = []
    while True:
        page = records.page(wanted)
        found.append([info.run_id for info in page.runs])
        if not page.next_page_token:
            return found
        wanted = replace(wanted, page_token=page.next_page_token)


def test_runs_of_all_kinds_are_listed_newest_first_page_by_page(records: Records) -> None:
    kinds = list(RunKind)
    for number in range(10):
        put(records, f"run-{number}", 1000.0 + number, kinds[number % 4])
    newest_first = [f"run-{number}" for number in reversed(range(10))]
    assert pages(records, RunFilter(page_size=4)) == [newest_first[:4], newest_first[4:8], newest_first[8:]]
    assert pages(records, RunFilter(page_size=5)) == [newest_first[:5], newest_first[5:]]
    assert pages(records, RunFilter()) == [newest_first]


def test_runs_are_filtered_by_kind_state_and_owner(records: Records) -> None:
    put(records, "a", 1.0, owner="ann")
    put(records, "b", 2.0, owner="bob", state=RunState.FAILED)
    put(records, "c", 3.0, RunKind.TRAIN, owner="ann")
    assert pages(records, RunFilter(kind=RunKind.STYLIZE)) == [["b", "a"]]
    assert pages(records, RunFilter(state=RunState.FAILED)) == [["b"]]
    assert pages(records, RunFilter(owner="ann", page_size=1)) == [["c"], ["a"]]
    assert pages(records, RunFilter(kind=RunKind.SWEEP)) == [[]]


def test_a_run_that_appears_between_two_pages_moves_none_of_the_others(records: Records) -> None:
    for number in range(4):
        put(records, f"run-{number}", 1000.0 + number)
    first = records.page(RunFilter(page_size=2))
    put(records, "newer", 2000.0)
    second = records.page(RunFilter(page_size=2, page_token=first.next_page_token))
    assert [info.run_id for info in second.runs] == ["run-1", "run-0"]


@pytest.mark.parametrize("token", ["x", "bm9uZQ==", "WzFd"])
def test_a_token_that_is_none_is_refused(records: Records, token: str) -> None:
    with pytest.raises(InvalidInput) as error:
        records.page(RunFilter(page_token=token))
    assert error.value.field == "page_token"


def test_a_token_of_other_filters_is_refused(records: Records) -> None:
    for number in range(2):
        put(records, f"run-{number}", 1.0)
    token = records.page(RunFilter(page_size=1)).next_page_token
    with pytest.raises(InvalidInput, match="other filters"):
        records.page(RunFilter(owner="ann", page_token=token))


def test_a_run_shows_its_size(records: Records) -> None:
    run = put(records, "a", 1.0)
    before = records.page(RunFilter()).runs[0].bytes
    run.put("png", b"x" * 1000)
    assert records.page(RunFilter()).runs[0].bytes == before + 1000


@pytest.mark.parametrize(("detached", "shown"), [(True, RunState.QUEUED), (False, RunState.STOPPED)])
def test_a_run_whose_lease_has_ended_is_not_shown_as_running(records: Records, detached: bool, shown: RunState) -> None:
    put(records, "a", 1.0, state=RunState.RUNNING, detached=detached)
    assert records.page(RunFilter()).runs[0].state is RunState.RUNNING
    assert Records(records.store, lease_seconds=0.0).page(RunFilter()).runs[0].state is shown


def test_only_detached_runs_without_a_lease_are_abandoned(records: Records) -> None:
    put(records, "running", 1.0, state=RunState.RUNNING, detached=True)
    put(records, "attached", 1.0, state=RunState.RUNNING)
    ended = put(records, "ended", 1.0, state=RunState.RUNNING, detached=True)
    records.write(ended, Record(RunInfo("ended", RunKind.STYLIZE, 1.0, state=RunState.STOPPED, detached=True)))
    assert list(records.abandoned(RunKind.STYLIZE)) == []
    assert list(Records(records.store, lease_seconds=0.0).abandoned(RunKind.STYLIZE)) == ["running"]


def test_a_key_of_a_detached_run_stays_while_its_record_may_still_be_written(records: Records) -> None:
    key = "detached/stylize/new"
    records.store.put(key, b"")  # as `begin` does, before the record
    assert list(records.abandoned(RunKind.STYLIZE)) == []
    assert [entry.key for entry in records.store.list("detached")] == [key]
    assert list(Records(records.store, lease_seconds=-1.0).abandoned(RunKind.STYLIZE)) == []
    assert records.store.list("detached") == []


def test_a_process_that_lost_its_run_cannot_write_the_record(records: Records) -> None:
    run = put(records, "a", 1.0, state=RunState.RUNNING)
    Run.take_over(records.store, "stylize", "a")
    record = records.read(RunKind.STYLIZE, "a")
    assert record is not None
    with pytest.raises(Aborted):
        records.write(run, record)


def test_the_index_is_repaired_after_a_crash_between_two_writes(records: Records) -> None:
    put(records, "with-hyphens", time.time())
    put(records, "gone", 1.0).delete()
    [_, key] = [entry.key for entry in records.store.list("index")]
    unlisted = put(records, "unlisted", 2.0)
    records.store.delete(next(entry.key for entry in records.store.list("index") if "unlisted" in entry.key))
    records.repair(RunKind.STYLIZE)
    assert pages(records, RunFilter()) == [["with-hyphens", unlisted.run_id]]
    assert key not in [entry.key for entry in records.store.list("index")]
