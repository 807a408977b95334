"""One call of every RPC enters the files that docs/architecture.md names, and no more files than its ceiling allows.

`python -m tests.guards.paths` prints what is entered now. The page documents each call under the heading
`## The path of every call` as

    ### gramlet.stylize.v1.StylizeService/Stylize

    - `clients/gramlet/_sync/stylize.py`: what happens there
    - `services/gramlet_server/stylize/service.py`: and there

with no file of `runtime/`, which wraps every call, and none of `backbone/`, the network.
"""

from __future__ import annotations

import re

import pytest

from tests.guards.paths import CALLS, Paths, measured, rpcs
from tests.guards.product import ROOT

PAGE = ROOT / "docs/architecture.md"
HEADING = "## The path of every call"

# Files that one call may enter, the worst call first. One or two more are allowed: caches and the order of threads
# make the numbers vary. A comment says how many a call entered on c3b0cf4, before modules moved into rooms.
# When a call needs fewer, lower its number. Issue 11 aimed at a median of 11 and a worst call of 24. Shared pieces
# (message tables, checks of values, identity, the memory budget, runs, passes) count once in every call that uses them.
CEILINGS = {
    "gramlet.stylize.v1.StylizeService/Sweep": 80,
    "gramlet.stylize.v1.StylizeService/Stylize": 77,
    "gramlet.embed.v1.EmbedService/Embed": 76,  # 33
    "gramlet.train.v1.TrainService/Train": 81,  # 36
    "gramlet.embed.v1.EmbedService/Transform": 59,  # 24
    "gramlet.feature.v1.FeatureService/Descend": 50,
    "gramlet.feature.v1.FeatureService/See": 50,
    "gramlet.train.v1.TrainService/Predict": 49,  # 23
    "gramlet.feature.v1.FeatureService/ExtractStream": 41,  # 18
    "gramlet.feature.v1.FeatureService/Differentiate": 34,  # 18
    "gramlet.feature.v1.FeatureService/Extract": 35,  # 17
    "gramlet.stylize.v1.StylizeService/Adjust": 32,
    "gramlet.embed.v1.EmbedService/DrawMap": 26,  # 14
    "gramlet.run.v1.RunService/StopRun": 22,
    "gramlet.stylize.v1.StylizeService/GetStatus": 29,
    "gramlet.run.v1.RunService/DeleteRun": 22,
    "gramlet.run.v1.RunService/GetRun": 22,
    "gramlet.train.v1.TrainService/GetHead": 21,
    "gramlet.embed.v1.EmbedService/GetMap": 22,  # 12
    "gramlet.run.v1.RunService/ListRuns": 22,
    "gramlet.train.v1.TrainService/ExportHead": 21,
    "gramlet.embed.v1.EmbedService/DeleteMap": 19,  # 7
    "gramlet.train.v1.TrainService/DeleteHead": 18,
    "gramlet.embed.v1.EmbedService/ListMaps": 17,  # 10
    "gramlet.train.v1.TrainService/ListHeads": 16,
    "gramlet.feature.v1.FeatureService/GetModel": 17,
}


@pytest.fixture(scope="module")
def paths() -> Paths:
    """The files that one call of each RPC enters."""
    return measured()


def documented() -> Paths:
    """The files that the page names for each RPC."""
    if not PAGE.exists():
        pytest.skip(f"{PAGE.name} is not written yet")
    _, found, rest = PAGE.read_text().partition(f"\n{HEADING}\n")
    assert found, f"{PAGE.name} has no heading `{HEADING}`"
    section = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    calls = re.split(r"^### (\S+)\s*$", section, flags=re.MULTILINE)[1:]
    return {
        rpc: tuple(re.findall(r"^- `([^`]+)`", text, re.MULTILINE))
        for rpc, text in zip(calls[::2], calls[1::2], strict=True)
    }


def test_every_rpc_is_called_and_has_a_ceiling() -> None:
    assert sorted(CALLS) == sorted(rpcs())
    assert sorted(CEILINGS) == sorted(rpcs())


def test_the_page_names_every_rpc() -> None:
    pages = documented()
    assert sorted(pages) == sorted(rpcs())
    assert [rpc for rpc, files in pages.items() if not files] == []


@pytest.mark.parametrize("rpc", CALLS)
def test_a_call_enters_no_more_files_than_its_ceiling(rpc: str, paths: Paths) -> None:
    assert 0 < len(paths[rpc]) <= CEILINGS[rpc], "\n".join(paths[rpc])


@pytest.mark.parametrize("rpc", CALLS)
def test_a_call_enters_every_file_that_the_page_names(rpc: str, paths: Paths) -> None:
    missing = [file for file in documented().get(rpc, ()) if file not in paths[rpc]]
    assert missing == [], "\n".join(["entered were:", *paths[rpc]])
