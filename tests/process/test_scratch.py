"""A full disk is an error of the run that fills it, not the end of the server."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from gramlet.errors import Overloaded
from gramlet_server.process import scratch


def test_the_blocks_of_a_mapped_file_are_there_before_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "features"
    scratch.allocate(path, 1_000_000)
    status = path.stat()
    assert status.st_size == 1_000_000
    assert status.st_blocks * 512 >= 1_000_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_server_without_room(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Overloaded, match="temporary files is full"):
        scratch.allocate(tmp_path / "features", 10)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), scratch.refusing_full_disks():
        raise PermissionError(errno.EACCES, "denied")
