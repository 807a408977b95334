"""The store is watched: a server knows when it fails, and when it works again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest
from gramlet.errors import GramletError, NotFound, Unavailable
from gramlet_server.runs import store as store_module
from gramlet_server.runs.readiness import StoreMonitor
from gramlet_server.runs.store import Store


@contextmanager
def watched(store: Store, check_seconds: float) -> Iterator[SimpleQueue[GramletError | None]]:
    """What a monitor of the store reports."""
    monitor = StoreMonitor(store, check_seconds, retry_seconds=0.01)
    reports: SimpleQueue[GramletError | None] = SimpleQueue()
    monitor.subscribe(reports.put)
    yield reports
    monitor.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "store"


def test_a_directory_that_goes_and_comes_back_is_noticed(store: Store, folder: Path) -> None:
    with watched(store, check_seconds=0.01) as reports:
        assert reports.get(timeout=30) is None
        folder.rename(folder.with_name("away"))
        assert isinstance(error := reports.get(timeout=30), Unavailable)
        assert str(folder) not in str(error)
        folder.with_name("away").rename(folder)
        assert reports.get(timeout=30) is None
    assert list(folder.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_noticed(store: Store, folder: Path) -> None:
    (folder / "check").write_bytes(b"a file where checks want a folder")
    with watched(store, check_seconds=0.01) as reports:
        assert isinstance(reports.get(timeout=30), Unavailable)
        (folder / "check").unlink()
        assert reports.get(timeout=30) is None


def test_the_store_is_checked_as_soon_as_a_request_to_it_has_failed(store: Store, folder: Path) -> None:
    with watched(store, check_seconds=3600.0) as reports:
        assert reports.get(timeout=30) is None
        folder.rename(folder.with_name("away"))
        with pytest.raises(Unavailable):
            store.put("key", b"value")
        assert isinstance(reports.get(timeout=30), Unavailable)


def test_a_directory_that_is_gone_is_not_made_again_and_keeps_no_secret(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(folder)
    for request in (lambda: store.put("key", b""), lambda: store.create("key", b""), lambda: store.get("key")):
        with pytest.raises(Unavailable, match=r"^the store of the server fails; the log of the server says why$"):
            request()
    with pytest.raises(Unavailable):
        store.list("runs")
    assert not folder.exists()
    assert f"the store {folder} failed at key: the directory is gone" in caplog.text


def test_what_checks_of_lost_processes_have_left_is_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("check/left", b"gramlet")
    store.check()
    assert store.get("check/left")
    monkeypatch.setattr(store_module, "_CHECK_LASTS", timedelta(0))
    store.check()
    with pytest.raises(NotFound):
        store.get("check/left")
