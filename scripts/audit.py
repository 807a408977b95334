"""Looks for known vulnerabilities in what the images install, and in what the pyproject files allow.

Two sources: `scripts/advisories.txt`, always; and pip-audit, which asks the registry, where it can. Exits with 1 if one
of them knows something.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ("all", "torch")
PROJECTS = ("clients", "clients/studio", "services")


class Advisory(NamedTuple):
    """A vulnerability of all releases of a package before one."""

    package: str
    mended: Version
    identifier: str
    about: str


class Use(NamedTuple):
    """A release that is, or may be, installed, and which file says so."""

    package: str
    version: Version
    where: str


def advisories(text: str) -> list[Advisory]:
    """The advisories of a file like advisories.txt."""
    lines = (line.split(maxsplit=2) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    split = ((*rule.split("<"), identifier, about) for rule, identifier, about in lines)
    return [Advisory(package, Version(mended), identifier, about) for package, mended, identifier, about in split]


def pinned(lock: Path) -> Iterator[Use]:
    """The releases of a file of `make lock`."""
    for package, version in re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        yield Use(package, Version(version), str(lock.relative_to(ROOT)))


def floors(project: Path) -> Iterator[Use]:
    """The lowest releases that a pyproject allows."""
    described = tomllib.loads(project.read_text())["project"]
    extras = described.get("optional-dependencies", {}).values()
    for text in (*described.get("dependencies", ()), *(text for extra in extras for text in extra)):
        requirement = Requirement(text)
        lowest = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
        if lowest and not requirement.name.startswith("gramlet"):
            yield Use(requirement.name.lower(), max(lowest), str(project.relative_to(ROOT)))


def known(uses: list[Use], advised: list[Advisory]) -> list[str]:
    """A line for each use that an advisory is about."""
    return [
        f"{use.where}: {use.package} {use.version} has {each.identifier} ({each.about}): use at least {each.mended}"
        for use in uses
        for each in advised
        if use.package == each.package and use.version < each.mended
    ]


def asked(locks: list[Path]) -> tuple[list[str], str]:
    """What pip-audit knows about the locks; and why it could not look, if it could not."""
    files = [argument for lock in locks for argument in ("--requirement", str(lock))]
    command = ["--require-hashes", "--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=10", *files]
    done = subprocess.run([sys.executable, "-m", "pip_audit", *command], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return [], (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
    skipped = [each["skip_reason"] for each in found if "skip_reason" in each]
    if len(skipped) == len(found):
        return [], f"the registry serves no advisories here ({skipped[0]})"
    lines = [
        f"{each['name']} {each['version']} has {vulnerability['id']}: {vulnerability['fix_versions']}"
        for each in found
        for vulnerability in each.get("vulns", ())
    ]
    return lines, f"{len(skipped)} of {len(found)} packages" if skipped else ""


def main() -> int:
    """Prints what is known."""
    locks = [ROOT / f"docker/requirements/{name}.txt" for name in LOCKS]
    uses = [use for lock in locks for use in pinned(lock)]
    uses += [use for name in PROJECTS for use in floors(ROOT / name / "pyproject.toml")]
    lines = known(uses, advisories((ROOT / "scripts/advisories.txt").read_text()))
    more, skipped = asked(locks)
    if skipped:
        print(f"SKIPPED: pip-audit: {skipped}; scripts/advisories.txt was checked")
    print("\n".join([*lines, *more]) or f"{len(uses)} releases without a known vulnerability")
    return int(bool(lines or more))


if __name__ == "__main__":
    sys.exit(main())
