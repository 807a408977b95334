"""Type checkers accept the first program that a user sees."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gramlet
import pytest

ROOT = Path(__file__).parents[2]
SDK = Path(gramlet.__file__).parents[1]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The first Python program of the README, as a file."""
    found = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    assert "step.image.save" in found[1]
    path = tmp_path / "program.py"
    path.write_text(found[1])
    return path


def test_mypy_accepts_it(program: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "mypy.ini"
    # Generated code is checked nowhere.
    configuration.write_text("[mypy]\nstrict = True\n[mypy-gramlet.*]\nignore_errors = True\n")
    cache = ROOT / "build/mypy-of-users"
    options = ["--config-file", str(configuration), "--cache-dir", str(cache)]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(program)],
        env={**os.environ, "MYPYPATH": str(SDK)},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pyright_accepts_its_types(program: Path, tmp_path: Path) -> None:
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(SDK)], "include": [program.name]}))
    checked = subprocess.run(
        [pyright, "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"], capture_output=True, text=True
    )
    if not checked.stdout.startswith("{"):
        pytest.skip(f"pyright could not fetch itself: {checked.stderr[-200:]}")
    report = json.loads(checked.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    # Pyright warns of every variable that is used after its loop; no type can prevent that.
    found = [one for one in report["generalDiagnostics"] if not one["rule"].startswith("reportPossiblyUnbound")]
    assert found == []
