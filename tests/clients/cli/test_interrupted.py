"""Ctrl-C, a reader that leaves, and a server that is lost: how a command ends, or goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gramlet.cli import stylize_set
from gramlet.errors import Unavailable
from gramlet.run.types import RunInfo, RunKind, RunState
from gramlet.run.v1.run_pb2 import GetRunResponse
from gramlet.run.wire import encode_stopped
from gramlet.stylize.types import Checkpoint, Iteration, Result, Started, StylizeSettings
from gramlet.stylize.v1.stylize_pb2 import StylizeRequest
from gramlet.stylize.wire import encode_event

from tests.clients.cli.commands import SMALL, Run, events
from tests.clients.servers import RUN, STYLIZE, Script, serving
from tests.ctrl_c import GRAMLET

ROOT = Path(__file__).parents[3]


def endless(request: Any, context: Any) -> Iterator[Any]:
    """A run that has a checkpoint, and goes on until it is cancelled."""
    yield encode_event(Started(height=4, width=4, settings=StylizeSettings(iterations=999)), request.run_id)
    yield encode_event(Checkpoint(iteration=1), request.run_id)
    number = 0
    while context.is_active():
        number += 1
        event = Iteration(iteration=number, loss=1.0, style_loss=0.0, content_loss=0.0)
        yield encode_event(event, request.run_id)


def command(server: Any, picture: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    arguments = ["stylize", str(picture), str(picture), "-o", str(out), "--server", f"127.0.0.1:{server.port}"]
    return subprocess.Popen(
        [*GRAMLET, *arguments, "--run-id", "mine", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted_at_an_iteration(process: subprocess.Popen[str]) -> str:
    """What a command with `--json` writes to stderr when Ctrl-C ends it after its first iteration."""
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "iteration":
        pass
    process.send_signal(signal.SIGINT)
    _, noted = process.communicate(timeout=60)
    return noted


def test_ctrl_c_ends_with_130_and_the_way_to_go_on(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    with serving({STYLIZE: Script(Stylize=[endless])}) as server, command(server, picture, out, "--json") as process:
        noted = interrupted_at_an_iteration(process)
    assert process.returncode == 130
    assert noted.splitlines() == [
        f"gramlet: go on with: gramlet stylize --resume mine -o {out} --json --server 127.0.0.1:{server.port}",
        "gramlet: interrupted",
    ]
    assert not out.exists()


def test_ctrl_c_leaves_a_detached_run_that_was_resumed_to_the_server(picture: Path, tmp_path: Path) -> None:
    def resumed(request: Any, context: Any) -> Iterator[Any]:
        return endless(StylizeRequest(run_id=request.resume_run_id), context)

    def known(request: Any, context: Any) -> Any:
        run = RunInfo(request.run_id, RunKind.STYLIZE, 0.0, state=RunState.RUNNING, detached=True)
        return GetRunResponse(run=encode_stopped(run).run)

    scripts = {STYLIZE: Script(Stylize=[resumed]), RUN: Script(GetRun=[known])}
    with serving(scripts) as server:
        address = f"127.0.0.1:{server.port}"
        arguments = ["stylize", "--resume", "mine", "-o", str(tmp_path / "o.png"), "--json", "--server", address]
        with subprocess.Popen(
            [*GRAMLET, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            noted = interrupted_at_an_iteration(process)
    assert process.returncode == 130
    assert noted.splitlines() == [
        f"gramlet: run mine goes on without this command; watch it: gramlet runs watch mine --server {address}",
        "gramlet: interrupted",
    ]


def test_what_ctrl_c_breaks_is_an_interruption_as_well(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("cannot release un-acquired lock")  # as a lock that Ctrl-C has met

    monkeypatch.setattr(stylize_set._Painting, "show", interrupted)
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "a.png").write_bytes(picture.read_bytes())
    code, _, noted = gramlet("stylize", frames, picture, "-o", tmp_path / "out", *SMALL)
    assert (code, noted.splitlines()[-1]) == (130, "gramlet: interrupted")


@pytest.mark.parametrize("full", ["stderr", "stdout"])
def test_a_full_disk_below_stderr_changes_nothing_and_one_below_stdout_is_a_failure(
    full: str, address: str, tmp_path: Path, picture: Path
) -> None:
    out = tmp_path / "o.png"
    with Path("/dev/full").open("w") as disk:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, full: disk}
        arguments = ["stylize", str(picture), str(picture), "-o", str(out), "--server", address, *map(str, SMALL)]
        ended = subprocess.run([*GRAMLET, *arguments], **streams, text=True, check=False)
        wrong = subprocess.run([*GRAMLET, "stylize", "nowhere.jpg", "nowhere.jpg"], **streams, text=True, check=False)
    assert out.exists()
    assert wrong.returncode == 2
    if full == "stderr":
        assert (ended.returncode, ended.stdout.startswith(f"{out}: 1 iteration, loss")) == (0, True)
    else:
        assert (ended.returncode, "No space left" in ended.stderr) == (1, True)


def test_ctrl_c_among_several_pictures_says_which_are_painted(
    gramlet: Run, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("a.png", "b.png"):
        (frames / name).write_bytes(picture.read_bytes())
    show = stylize_set._Painting.show

    def interrupted(self: Any, step: Any, meter: Any) -> None:
        if step.index:
            raise KeyboardInterrupt
        show(self, step, meter)

    monkeypatch.setattr(stylize_set._Painting, "show", interrupted)
    code, _, noted = gramlet("stylize", frames, picture, "-o", tmp_path / "out", "--sequence", *SMALL)
    assert (code, noted.splitlines()[-1]) == (130, "gramlet: interrupted")
    painted = tmp_path / "out" / "a.png"
    assert f"1 of 2 pictures painted, the last is {painted}: go on with the frames after it and --initial" in noted


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(picture: Path, tmp_path: Path) -> None:
    with (
        serving({STYLIZE: Script(Stylize=[endless])}) as server,
        command(server, picture, tmp_path / "o.png", "--json") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_a_lost_server_is_told_on_stderr_and_the_run_goes_on(
    gramlet: Run, picture: Path, tmp_path: Path, png: bytes
) -> None:
    def broken(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Started(height=4, width=4, settings=StylizeSettings(iterations=1)), request.run_id)
        raise Unavailable("going away")

    def resumed(request: Any, context: Any) -> Iterator[Any]:
        yield encode_event(Result(iteration=1, loss=1.0, png=png), request.resume_run_id)

    with serving({STYLIZE: Script(Stylize=[broken, resumed])}) as server:
        code, said, noted = gramlet(
            *("stylize", picture, picture, "-o", tmp_path / "o.png", "--server", f"127.0.0.1:{server.port}", "--json")
        )
    assert code == 0
    assert [event["event"] for event in events(said)] == ["started", "reconnecting", "result"]
    assert "lost its server: going away" in noted


@pytest.mark.parametrize("program", ["clients/gramlet_program.py", "services/gramlet_server_program.py"])
def test_ctrl_c_while_a_program_is_imported_prints_no_traceback(program: str, tmp_path: Path) -> None:
    package = tmp_path / Path(program).stem.removesuffix("_program")
    package.mkdir()
    (package / "__init__.py").write_text("import os\nos.kill(os.getpid(), 2)\nprint('went on')\n")
    start = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"runpy.run_path({str(ROOT / program)!r})['main']()\n"
    )
    ended = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
