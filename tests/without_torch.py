"""What the tests of services without torch share: a process that cannot import it, and what an extra requires."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

_PROJECT = Path(__file__).parents[1] / "services/pyproject.toml"
_NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, NoTorch())
"""


def output_without_torch(program: str, *arguments: str) -> str:
    """What a Python program prints where neither torch nor torchvision can be imported."""
    command = [sys.executable, "-c", _NO_TORCH + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def required_by(extra: str) -> set[str]:
    """The distributions that an extra of gramlet-server leads to, those that they require included."""
    project = tomllib.loads(_PROJECT.read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    seen: set[tuple[str, str]] = set()
    wanted = [each for line in lines for each in _named(Requirement(line))]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted += _named(requirement)
    return {name.lower() for name, _ in seen}


def _named(requirement: Requirement) -> list[tuple[str, str]]:
    return [(requirement.name, extra) for extra in (requirement.extras or {""})]
