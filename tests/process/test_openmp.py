"""Waiting threads of OpenMP spin only shortly, unless the environment of the server says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from gramlet_server.process.openmp import bound_spinning

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_environment_says_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in NAMES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "active")
    bound_spinning()
    assert [os.environ.get(each) for each in NAMES].count(None) == 1


def test_it_is_set_before_torch_is_loaded() -> None:
    """OpenMP reads it when torch loads it."""
    program = (
        "import os, sys, gramlet_server.__main__ as server\n"
        "assert server.main(['probe', '--port', '1', '--host', '127.0.0.1']) == 1\n"
        "assert 'torch' not in sys.modules\n"
        "assert os.environ['GOMP_SPINCOUNT'].isdecimal()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
