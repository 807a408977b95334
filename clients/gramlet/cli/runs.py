"""`gramlet runs`: lists, shows, watches, stops and deletes the runs in the server's store."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from gramlet._sync.client import Client
from gramlet._sync.runs import Run
from gramlet.cli import embed, stylize, sweep, train
from gramlet.cli.arguments import file_path, whole
from gramlet.cli.files import PICTURES, check_output, png_as, write_atomically
from gramlet.cli.terminal import Meter, Terminal, local_time
from gramlet.errors import InvalidInput, shown
from gramlet.json_codec import plain
from gramlet.run.types import RunInfo, RunKind, RunState

FIELDS = {"run_id": "run"}
OF_ACTIONS = {"output": ("show", "watch"), **dict.fromkeys(("state", "owner", "limit"), ("list",))}
HELP = "list, show, watch, stop or delete runs"

_HINTS = {RunKind.EMBED: ": `gramlet maps draw` draws it", RunKind.TRAIN: ": see `gramlet heads`"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to do, and with which run."""
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "watch", "stop", "delete"))
    parser.add_argument("run", nargs="?", help="its id; of a map: the map's name")
    parser.add_argument("--kind", choices=[kind.value for kind in RunKind], help="only runs of this kind")
    parser.add_argument("--state", choices=[state.value for state in RunState], help="list: only runs in this state")
    parser.add_argument("--owner", default="", help="list: only runs of this token's name")
    parser.add_argument("--limit", type=whole, default=50, metavar="N", help="list: the newest N (%(default)s); 0: all")
    parser.add_argument(
        "-o", "--output", type=file_path, help="show, watch: where to write the picture: .png, .jpg, ..."
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Does it."""
    if arguments.action == "list":
        if arguments.run:
            raise InvalidInput(
                f"list shows all runs: `gramlet runs show {shown(arguments.run)}` shows one", field="run"
            )
        return _list(arguments, client, terminal)
    if not arguments.run:
        raise InvalidInput(f"say which run to {arguments.action}", field="run")
    if arguments.output:
        check_output(arguments.output, PICTURES, "--output")
    actions = {"show": _show, "watch": _watch, "stop": _stop, "delete": _delete}
    actions[arguments.action](arguments, client.run(arguments.run, arguments.kind), terminal)
    return 0


def _list(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    runs = client.runs(kind=arguments.kind, state=arguments.state, owner=arguments.owner)
    for info in islice(runs, arguments.limit or None):
        terminal.event("run", **_values(info))
        terminal.say(_line(info))
    return 0


def _show(arguments: argparse.Namespace, run: Run, terminal: Terminal) -> None:
    details = run.details(include_result=arguments.output is not None)
    info, result = details.run, details.result
    terminal.event("run", **_values(info))
    terminal.say(_line(info))
    if info.error:
        terminal.say(f"{info.error.field}: {info.error.message}" if info.error.field else info.error.message)
    if arguments.output:
        if result is None or result.png is None:
            raise InvalidInput("the run has no picture as its result", field="--output")
        write_atomically(arguments.output, png_as(result.png, arguments.output))
        terminal.event("picture", path=str(arguments.output))
        terminal.say(str(arguments.output))


def _watch(arguments: argparse.Namespace, run: Run, terminal: Terminal) -> None:
    kind = run.info().kind
    if arguments.output and kind not in (RunKind.STYLIZE, RunKind.SWEEP):
        raise InvalidInput(
            f"a run of {kind.value} has no picture as its result{_HINTS.get(kind, '')}", field="--output"
        )
    show = _shown(kind, arguments.output, terminal)
    with run.watch() as events, terminal.progress("watching") as meter:
        for event in events:
            show(event, meter)


def _stop(arguments: argparse.Namespace, run: Run, terminal: Terminal) -> None:
    info = run.stop()
    terminal.event("run", **_values(info))
    terminal.say(_line(info))


def _delete(arguments: argparse.Namespace, run: Run, terminal: Terminal) -> None:
    run.delete()
    terminal.event("deleted", run_id=run.run_id)
    terminal.say(f"{run.run_id} deleted")


def _shown(kind: RunKind, output: Path | None, terminal: Terminal) -> Callable[[Any, Meter], None]:
    """How the events of a run of this kind are shown: as by the command that orders such runs."""
    match kind:
        case RunKind.STYLIZE:
            return stylize.Shown(terminal, output, None).show
        case RunKind.SWEEP:
            return sweep.Shown(terminal, output, None).show
        case RunKind.TRAIN:
            return train.Shown(terminal, None).show
        case RunKind.EMBED:
            return embed.Shown(terminal, coordinates=False).show


def _values(info: RunInfo) -> dict[str, Any]:
    values: dict[str, Any] = plain(info, keep_none=False)
    return values


def _line(info: RunInfo) -> str:
    """A run in one line."""
    progress = info.progress
    is_partial = progress.total and info.state is not RunState.SUCCEEDED
    done = f" {progress.done}/{progress.total} {progress.phase}" if is_partial else ""
    created = local_time(info.created)
    parts = [f"{info.kind.value} {info.state.value}{done}", _size(info.bytes), created, info.owner, info.settings]
    return f"{info.run_id}: {', '.join(filter(None, parts))}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
