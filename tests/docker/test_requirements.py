"""docker/requirements: every package of every target, pinned, hashed, wanted, and not known as vulnerable."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "docker/requirements"
TARGETS = ("stylize", "embed", "train", "feature", "all")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec
    assert spec.loader
    sys.modules["audit"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wanted(extra: str) -> list[Requirement]:
    """What an image has to have, as the pyproject files say."""
    projects = [
        tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in ("clients", "services")
    ]
    extras = projects[1]["optional-dependencies"]
    names = TARGETS[:-1] if extra == "all" else (extra,)
    texts = [text for project in projects for text in project["dependencies"]]
    texts += [text for name in names for text in extras[name]]
    return [each for each in map(Requirement, texts) if not each.name.startswith("gramlet")]


@pytest.mark.parametrize("target", TARGETS)
def test_a_lock_has_what_its_target_needs(target: str, audit: ModuleType) -> None:
    """If this fails, run `make lock`."""
    found: dict[str, list[Version]] = {}
    for use in (*audit.pinned(LOCKS / f"{target}.txt"), *audit.pinned(LOCKS / "torch.txt")):
        found.setdefault(use.package, []).append(use.version)
    for requirement in wanted(target):
        versions = found.get(requirement.name.lower(), [])
        assert versions, f"{requirement} is not in {target}.txt"
        assert all(version in requirement.specifier for version in versions), requirement


def test_everything_is_pinned_with_a_hash() -> None:
    for lock in LOCKS.iterdir():
        entries = re.split(r"\n(?=\w)", lock.read_text().partition("\n")[2])
        assert all(re.match(r"[a-z0-9-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries), lock


def test_the_dockerfile_takes_the_locked_torch() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    for package in ("torch", "torchvision"):
        [version] = re.findall(rf"^{package}==(\S+)", (LOCKS / "torch.txt").read_text(), re.MULTILINE)
        assert f" {package}=={version}" in dockerfile
        assert f" {package}=={version}\n" in (ROOT / "Makefile").read_text()


def test_a_known_vulnerability_is_named_with_its_fix(audit: ModuleType) -> None:
    advised = audit.advisories("# comment\nthing<2.0.1  CVE-1  eats memory\n")
    uses = [audit.Use("thing", Version(version), "a.txt") for version in ("2.0.0", "2.0.1")]
    assert audit.known([*uses, audit.Use("other", Version("1"), "a.txt")], advised) == [
        "a.txt: thing 2.0.0 has CVE-1 (eats memory): use at least 2.0.1"
    ]


def test_nothing_that_is_known_is_locked_or_allowed(audit: ModuleType) -> None:
    uses = [use for name in audit.LOCKS for use in audit.pinned(LOCKS / f"{name}.txt")]
    uses += [use for name in audit.PROJECTS for use in audit.floors(ROOT / name / "pyproject.toml")]
    assert len(uses) > 60
    assert audit.known(uses, audit.advisories((ROOT / "scripts/advisories.txt").read_text())) == []
