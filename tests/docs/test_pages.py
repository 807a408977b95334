"""What the Markdown pages name exists: links, calls and flags."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from gramlet.embed.v1 import embed_pb2
from gramlet.feature.v1 import feature_pb2
from gramlet.run.v1 import run_pb2
from gramlet.stylize.v1 import stylize_pb2
from gramlet.train.v1 import train_pb2

ROOT = Path(__file__).parents[2]
SKIPPED = {".git", ".venv", ".venv-protos", "build", "out", "node_modules"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts))
FILES: tuple[FileDescriptor, ...] = (
    feature_pb2.DESCRIPTOR,
    stylize_pb2.DESCRIPTOR,
    train_pb2.DESCRIPTOR,
    embed_pb2.DESCRIPTOR,
    run_pb2.DESCRIPTOR,
)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_lists_every_call() -> None:
    calls = {method.name for file in FILES for service in file.services_by_name.values() for method in service.methods}
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[2])} == calls


def test_every_flag_that_a_page_names_exists() -> None:
    commands = [["gramlet_server", "all"], ["gramlet_server", "stylize"]]
    commands += [
        ["gramlet.cli", name]
        for name in (
            "stylize",
            "adjust",
            "sweep",
            "features",
            "see",
            "train",
            "predict",
            "heads",
            "embed",
            "runs",
            "studio",
            "status",
        )
    ]
    shown = [
        subprocess.run([sys.executable, "-m", *command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in commands
    ]
    known = set(re.findall(r"--[a-z][a-z0-9-]+", " ".join(shown))) | {"--help", "--json"}
    pages = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs", ROOT / "clients", ROOT / "services")]
    named = {
        (page.name, flag)
        for page in pages
        for span in re.findall(r"`([^`\n]+)`", without_code(page.read_text()))
        if span.startswith(("--", "gramlet"))
        for flag in re.findall(r"--[a-z][a-z0-9-]+", span)
    }
    elsewhere = {"--file"}  # of docker compose
    assert {(page, flag) for page, flag in named if flag not in known | elsewhere} == set()
