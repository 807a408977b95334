"""Something damaged in the store costs a line in the log; lists go on, and so does everything that is whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from gramlet.embed.settings import MapSettings
from gramlet.errors import DataLoss
from gramlet.run.types import RunFilter, RunInfo, RunKind, RunRef
from gramlet.train.types import HeadRef
from gramlet_server.embed import stored
from gramlet_server.runs.control import RunControl
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.records import Record, Records
from gramlet_server.runs.retention import sweep_runs
from gramlet_server.runs.run import Run
from gramlet_server.runs.store import Store
from gramlet_server.train.classifier import HeadWeights
from gramlet_server.train.descriptions import HeadSizes
from gramlet_server.train.registry import Registry

from tests.runs.kinds import finite
from tests.train.test_registry import HEAD, STATE

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "garbage": lambda _: bytes(range(256)),
    "another type": lambda _: b"[]",
    "nothing in it": lambda _: b"{}",
    "null": lambda _: b"null",
    "too deep": lambda _: b"[" * 100_000,
    "a number in place of text": lambda data: data.replace(b'"r1"', b"7").replace(b'"bees"', b"7"),
}
KINDS = ("index", "runs", "heads", "detached")


def fill(store: Store) -> None:
    """Two runs of a kind, two maps, and two versions of a head: r1, m1 and 1 are to be damaged, the others not."""
    records = Records(store)
    lifecycle = Lifecycle(records, 2, 8)
    for number in (1, 2):
        list(lifecycle.start(finite(records, f"r{number}", 1, "result")))
        run = Run.create(store, "embed", f"m{number}")
        records.begin(run, Record(RunInfo(f"m{number}", RunKind.EMBED, created=float(number))))
        stored.put_plan(run, stored.Plan(MapSettings(), float(number)))
        Registry(store).add(HEAD, HeadWeights(STATE, {}))


def damageable(store: Store) -> list[str]:
    """The keys of what is to be damaged."""
    keys = [entry.key for kind in KINDS for entry in store.list(kind) if entry.size]
    return [key for key in keys if key.startswith(("runs/train/r1/", "runs/embed/m1/", "heads/bees/00000001"))]


def check_lists(store: Store) -> None:
    """Makes every list that there is, and finds in each what is whole."""
    records = Records(store)
    shown = [info.run_id for info in records.page(RunFilter()).runs]
    assert {"r2", "m2"} <= set(shown)
    assert [head.version for head in Registry(store).heads()][-1] == 2
    assert "m2" in {summary.map_id for summary in stored.list_maps(store)}
    for kind in RunKind:
        records.repair(kind)
        list(records.abandoned(kind))
        sweep_runs(store, kind.value, timedelta(days=1))
    assert sum(size for _, size in [*records.sizes(), *HeadSizes(store)()]) > 0
    assert RunControl(records, []).get(RunRef("r2"), False).run.run_id == "r2"


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_value_ends_no_list(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    fill(store)
    keys = damageable(store)
    assert len(keys) >= 8
    for key in keys:
        whole = store.get(key)
        store.put(key, DAMAGES[damage](whole))
        check_lists(store)
        check_lists(store)
        store.put(key, whole)
    reports = [record.getMessage() for record in caplog.records if "left out of lists" in record.getMessage()]
    assert len(reports) == len(set(reports)) > 0 or damage == "a number in place of text"
    check_lists(store)


def test_what_is_damaged_says_so_itself(store: Store) -> None:
    fill(store)
    for key in damageable(store):
        store.put(key, b"\xff")
    for use in (
        lambda: RunControl(Records(store), []).get(RunRef("r1"), False),
        lambda: Registry(store).get(HeadRef("bees", 1)),
        lambda: stored.get_plan(Run(store, "embed", "m1")),
    ):
        with pytest.raises(DataLoss, match="damaged"):
            use()
    assert not store.failed.is_set()


def test_values_that_are_lost_are_not_waited_for(store: Store) -> None:
    fill(store)
    Run.take_over(store, "train", "r1")  # its base names the versions of the first owner
    for entry in store.list("runs/train/r1"):
        if "/summary." in entry.key:
            store.delete(entry.key)
    check_lists(store)
    with pytest.raises(DataLoss, match="missing"):
        RunControl(Records(store), []).get(RunRef("r1"), False)


@pytest.mark.parametrize("replaced_by", ["folder", "link to itself"])
def test_what_is_no_file_ends_no_list(tmp_path: Path, replaced_by: str) -> None:
    store = Store.open(str(tmp_path))
    fill(store)
    for key in damageable(store):
        path = tmp_path / key
        whole = path.read_bytes()
        path.unlink()
        path.mkdir() if replaced_by == "folder" else path.symlink_to(path.name)
        check_lists(store)
        path.rmdir() if replaced_by == "folder" else path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
    assert not store.failed.is_set()


def test_files_of_others_are_not_in_the_way(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    fill(store)
    folder = next((tmp_path / "runs/train/r1").glob("*/00000001"))
    strays = [
        *("runs/train/stray", "runs/train/x/y", "runs/embed/m1/foo/owner", "heads/x.json", "heads/bees/notes.txt"),
        *("heads/bees/99999999999.json", "index/train/stray", "detached/train/a b", "runs/stylize/s1/zz/owner"),
        *(f"{folder.relative_to(tmp_path)}/{name}" for name in ("notes", "notes.txt", "a\tb", os.fsdecode(b"\xff"))),
    ]
    for stray in strays:
        path = tmp_path / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hi")
        check_lists(store)
    assert Registry(store).add(HEAD, HeadWeights(STATE, {})).version == 3
