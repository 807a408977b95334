"""A store, and the records in it, as one process sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from gramlet_server.runs.records import Records
from gramlet_server.runs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def records(store: Store) -> Records:
    return Records(store)
