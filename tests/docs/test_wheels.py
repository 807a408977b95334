"""`python -m build` makes three wheels with the code, the protos, the license, links and a README of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
FOLDERS = {"clients": "gramlet", "clients/studio": "gramlet_studio", "services": "gramlet_server"}
"""The folder of each distribution, and its package."""
LICENSES = {"clients/studio": "Apache-2.0 AND MIT"}
"""Where it is not Apache-2.0 alone: PixiJS is in the page."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by distribution folder, each built from the source distribution that was built first."""
    built = {}
    for folder in FOLDERS:
        source, out = tmp_path_factory.mktemp("source") / "folder", tmp_path_factory.mktemp("dist")
        ignored = shutil.ignore_patterns("node", "studio", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / folder, source, ignore=ignored)  # a build leaves files in its source
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (built[folder],) = out.glob("*.whl")
    return built


@pytest.fixture(params=FOLDERS)
def wheel(request: pytest.FixtureRequest, wheels: dict[str, Path]) -> Path:
    return wheels[request.param]


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_a_wheel_carries_the_license(wheels: dict[str, Path]) -> None:
    for folder, wheel in wheels.items():
        carries_the_license(wheel, LICENSES.get(folder, "Apache-2.0"))


def carries_the_license(wheel: Path, expression: str) -> None:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    assert metadata(wheel)["License-Expression"] == expression


def test_a_wheel_has_links_into_the_repository_and_classifiers(wheel: Path) -> None:
    links = dict(link.split(", ") for link in metadata(wheel).get_all("Project-URL", []))
    assert set(links) == {"Documentation", "Changelog"}
    assert all((ROOT / path).is_file() for path in links.values())
    assert "Typing :: Typed" in metadata(wheel).get_all("Classifier", [])


def test_the_readme_of_a_wheel_stands_alone(wheel: Path) -> None:
    readme = metadata(wheel).get_payload()
    assert isinstance(readme, str)
    assert len(readme.split()) > 80
    assert "](" not in readme  # a relative link leads nowhere outside the repository


def test_the_sdk_carries_every_proto_where_protoc_looks_for_it(wheels: dict[str, Path]) -> None:
    with ZipFile(wheels["clients"]) as archive:
        carried = {name: archive.read(name) for name in archive.namelist() if name.endswith(".proto")}
    expected = {path.relative_to(PROTOS).as_posix(): path.read_bytes() for path in PROTOS.rglob("*.proto")}
    assert carried == expected


def test_a_wheel_has_every_file_of_its_package(wheels: dict[str, Path]) -> None:
    for folder, package in FOLDERS.items():
        here = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder / package).rglob("*.*")}
        with ZipFile(wheels[folder]) as archive:
            carried = {name for name in archive.namelist() if ".dist-info/" not in name}
        programs = {path.name for path in (ROOT / folder).glob("*.py")}  # where a program begins
        assert carried == programs | {name for name in here if "__pycache__" not in name}


def test_what_the_wheels_install_runs(wheels: dict[str, Path], tmp_path: Path) -> None:
    for wheel in wheels.values():
        with ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
    for module in ("gramlet.cli", "gramlet_server"):
        program = (
            f"import {module}, runpy, sys\n"
            f"assert {module}.__file__.startswith({str(tmp_path)!r})\n"
            f"sys.argv[1:] = ['--version']\n"
            f"runpy.run_module({module + '.__main__'!r}, run_name='__main__')\n"
        )
        environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == metadata(wheels["clients"])["Version"]
