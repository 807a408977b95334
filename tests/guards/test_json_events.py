"""What scripts build on stays what it is: the events of `--json`, their keys and types, and the exit codes.

Recorded from real runs of every command against a real server. Each key of an event is noted with the JSON types of its
values; keys of objects inside follow after a dot, elements of arrays after []. GRAMLET_UPDATE_GOLDENS=1 rewrites the
golden.
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gramlet
import numpy as np
import pytest
from PIL import Image

from tests.guards.goldens import HINT, golden_json
from tests.guards.product import gramlet_command, serving_all

Event = dict[str, Any]
SMALL = ("--size", "64", "--iterations", "3")
ENDLESS = 10_000


class Output(io.StringIO):
    """Takes a command's stdout, and does something as soon as the first event of some name is in it."""

    def __init__(self, reactions: dict[str, Callable[[], object]]) -> None:
        super().__init__()
        self._reactions = dict(reactions)

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.startswith("{") and (reaction := self._reactions.pop(json.loads(text)["event"], None)):
            reaction()
        return written


def run(*arguments: object, **reactions: Callable[[], object]) -> tuple[int, list[Event]]:
    """Runs a command line with `--json`; returns its exit code and its events. Reactions go by an event's name."""
    output = Output(reactions)
    with redirect_stdout(output), redirect_stderr(io.StringIO()):
        code = gramlet_command([*map(str, arguments), "--json"])
    return code, [json.loads(line) for line in output.getvalue().splitlines()]


@dataclass
class World:
    """A server that does one thing of a kind at a time, a client of it, and a folder with small pictures."""

    address: str
    client: gramlet.Client
    folder: Path
    seen: dict[str, list[Event]] = field(default_factory=dict)

    def record(self, command: str, code: int, *arguments: object, **reactions: Callable[[], object]) -> None:
        """Runs a command line, which must end with that code, and keeps its events under the command's name.

        It is `queued` only by chance, behind the end of the work before, unless it was made to wait.
        """
        ended, events = run(*arguments, "--server", self.address, **reactions)
        assert ended == code, events[-1:]
        wanted = [event for event in events if event["event"] != "queued" or "queued" in reactions]
        self.seen.setdefault(command, []).extend(wanted)

    def picture(self, name: str, number: int, color: Sequence[int] = (120, 120, 120)) -> Path:
        """A picture of noise around a color."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 30, (64, 64, 3))
        Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    def bad_picture(self, name: str) -> Path:
        """A file that is no picture."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")
        return path

    def busy(self, events: Any, until: str) -> Callable[[], object]:
        """Lets the server begin endless work, up to an event of that name; returns what ends it.

        Other work of the kind has to wait, so that its command reports that it is queued.
        """
        stack = ExitStack()
        stack.enter_context(events)
        next(event for event in events if type(event).__name__ == until)
        return stack.close


REPLACEABLE = {"checkpoint", "step", "preview", "extracting", "described", "working"}
"""A reader that is slow gets only the newest event of these types, or none if another one follows at once.
Whether a short run stores a checkpoint depends on how fast the state is written."""
BY_TIME = {"checkpoint", "step"}
"""Events that a command on a slow machine has and that its list lacks: they come only where work takes a while."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("guards")
    for outputs in ("set", "cells", "features"):
        (folder / outputs).mkdir()
    flags = ["--weights", "random:0", "--store", str(folder / "store"), "--log-level", "ERROR"]
    flags += ["--stylize-runs", "1", "--train-runs", "1", "--embed-runs", "1"]
    with serving_all(*flags) as address, gramlet.Client(address, timeout=120) as client:
        yield World(address, client, folder)


def test_the_events_of_every_command_have_the_keys_they_had(world: World) -> None:
    of_pictures = (_stylize, _compare, _several, _adjust, _sweep, _features, _see)
    for record in (*of_pictures, _train, _heads, _embed, _maps, _status, _errors):
        record(world)
    found = {command: _by_event(events) for command, events in sorted(world.seen.items())}
    golden = golden_json("json_events.json", found)
    assert sorted(golden) == sorted(found), HINT
    for command, events in golden.items():
        missing, more = events.keys() - found[command].keys(), found[command].keys() - events.keys()
        assert missing <= REPLACEABLE, f"{command}: {missing} {HINT}"
        assert more <= BY_TIME, f"{command}: {more} {HINT}"
        for name in events.keys() - missing:
            assert found[command][name] == events[name], f"{command}: {name} {HINT}"


def _stylize(world: World) -> None:
    content, style = world.picture("content.png", 1), world.picture("style.png", 2)
    out, preview = world.folder / "out.png", world.folder / "preview.jpg"
    free = world.busy(world.client.stylize(content, style, size=64, iterations=ENDLESS), "Iteration")
    world.record(
        *("stylize", 0, "stylize", content, style, "-o", out, *SMALL, "--state-seconds", 1e-9, "--preview", preview),
        *("--preview-every", 2),
        queued=free,
    )
    diverging = ("--optimizer", "adam", "--learning-rate", "100", "--iterations", 6, "--size", 64)
    world.record("stylize", 0, "stylize", content, style, "-o", out, *diverging)


def _compare(world: World) -> None:
    content, style = world.picture("content.png", 1), world.picture("style.png", 2)
    world.record("compare", 0, "stylize", content, style, "-o", world.folder / "c.png", "--compare", "gd", *SMALL)


def _several(world: World) -> None:
    pictures = [world.picture("one.png", 3), world.bad_picture("bad.png"), world.picture("two.png", 4)]
    style = world.folder / "style.png"
    world.record("stylize several", 1, "stylize", *pictures, "--style", style, "-o", world.folder / "set", *SMALL)


def _adjust(world: World) -> None:
    content, style = world.picture("content.png", 1), world.picture("style.png", 2)

    def adjust() -> None:
        world.record("adjust", 0, "adjust", "adjusted", "--style-weight", 5)

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.record(
        *("stylize", 130, "stylize", content, style, "-o", world.folder / "out.png", "--run-id", "adjusted"),
        *("--size", 64, "--iterations", ENDLESS),
        iteration=adjust,
        adjusted=interrupt,
    )


def _sweep(world: World) -> None:
    content, style = world.picture("content.png", 1), world.picture("style.png", 2)
    free = world.busy(world.client.stylize(content, style, size=64, iterations=ENDLESS), "Iteration")
    world.record(
        *("sweep", 0, "sweep", content, style, "-o", world.folder / "grid.png", "--cells", world.folder / "cells"),
        *("--ratios", "0.1,1", "--deepest", "layer1", *SMALL),
        queued=free,
    )


def _features(world: World) -> None:
    pictures = [world.picture("one.png", 3), world.bad_picture("bad.png")]
    what = ("--stages", "layer1,layer2", "--activations", "--gram", "--pooled")
    world.record("features", 1, "features", *pictures, "-o", world.folder / "features", *what)


def _see(world: World) -> None:
    pictures = [world.picture("one.png", 3), world.picture("two.png", 4), world.bad_picture("bad.jpg")]
    how = ("--size", 64, "--patches", 2, "--steps", 9, "--optimized-size", 48)
    world.record("see", 0, "see", "layer1:5", "--in", *pictures, "-o", world.folder / "see.png", *how)


def _train(world: World) -> None:
    for number, (label, color) in enumerate({"red": (200, 60, 60), "blue": (60, 60, 200)}.items()):
        for i in range(5):
            world.picture(f"labelled/{label}/{i}.png", 100 * number + i, color)
    world.bad_picture("labelled/red/bad.png")
    labelled = world.folder / "labelled"
    endless = world.client.train(labelled, name="endless", size=64, epochs=ENDLESS, patience=0)
    recipes = ("--strategy", "head,head_then_stages", "--stages", "layer4", "--epochs", 2, "--stage-epochs", 1)
    world.record(
        *("train", 0, "train", labelled, "--name", "colors", "--size", 64, "--batch-size", 4, *recipes),
        queued=world.busy(endless, "Epoch"),
    )
    pictures = [labelled / "red/0.png", labelled / "blue/0.png", labelled / "red/bad.png"]
    world.record("predict", 1, "predict", "colors", *pictures)


def _heads(world: World) -> None:
    world.record("heads list", 0, "heads")
    world.record("heads show", 0, "heads", "show", "colors")
    world.record("heads export", 0, "heads", "export", "colors", "-o", world.folder / "colors.safetensors")
    world.record("heads delete", 0, "heads", "delete", "colors/1")


def _embed(world: World) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    endless = world.client.embed(vectors, iterations=ENDLESS, perplexity=5.0, report_every=1)
    drawings = {name: world.folder / f"map.{name}" for name in ("png", "html")}
    world.record(
        *("embed", 0, "embed", world.folder / "labelled", "--map-id", "map", "--coordinates", "--perplexity", "1.5,2"),
        *("--stages", "conv1", "--iterations", 20, "--early-iterations", 10, "--width", 200),
        *("-o", drawings["png"], "--html", drawings["html"], "--grid", world.folder / "grid.png"),
        queued=world.busy(endless, "LayoutIteration"),
    )


def _maps(world: World) -> None:
    pictures = [world.folder / "one.png", world.folder / "bad.png"]
    world.record("maps list", 0, "maps")
    world.record("maps show", 0, "maps", "show", "map")
    world.record("maps draw", 0, "maps", "draw", "map", "-o", world.folder / "drawn.png", "--width", 200)
    world.record("maps place", 1, "maps", "place", "map", *pictures)
    world.record("maps delete", 0, "maps", "delete", "map")


def _status(world: World) -> None:
    world.record("status", 0, "status")


def _errors(world: World) -> None:
    world.record("any command", 2, "features", world.folder / "one.png", "-o", "x.npz", "--stages", "layer9")


def _by_event(events: list[Event]) -> dict[str, dict[str, str]]:
    """Keys and JSON types by name of the event; of a sweep's cell also by what happened in it."""
    found: dict[str, dict[str, set[str]]] = {}
    for event in events:
        values = dict(event)
        name = "/".join(filter(None, [values.pop("event"), values.get("happened")]))
        _note(values, "", found.setdefault(name, {}))
    return {name: {key: " or ".join(sorted(types[key])) for key in sorted(types)} for name, types in found.items()}


def _note(value: Any, path: str, types: dict[str, set[str]]) -> None:
    if path:
        types.setdefault(path, set()).add(_json_type(value))
    if isinstance(value, dict):
        for name, item in value.items():
            _note(item, f"{path}.{name}" if path else name, types)
    elif isinstance(value, list):
        for item in value:
            _note(item, f"{path}[]", types)


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


PICTURE = "content.png"
COMMANDS: dict[str, tuple[str, ...]] = {
    "stylize": ("stylize", PICTURE, PICTURE, "-o", "o.png"),
    "adjust": ("adjust", "run", "--style-weight", "2"),
    "sweep": ("sweep", PICTURE, PICTURE, "-o", "o.png"),
    "features": ("features", PICTURE, "-o", "o.npz", "--stages", "layer1"),
    "see": ("see", "layer1:5", "--in", PICTURE, "-o", "o.png"),
    "train": ("train", "labelled", "--name", "colors"),
    "predict": ("predict", "colors", PICTURE),
    "heads": ("heads",),
    "embed": ("embed", "labelled"),
    "maps": ("maps",),
    "status": ("status",),
}
READ_FILES = [name for name in COMMANDS if name not in ("adjust", "heads", "maps", "status")]


@pytest.fixture
def with_pictures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has the pictures that the command lines above name."""
    world.picture(PICTURE, 1)
    for label in ("red", "blue"):
        world.picture(f"labelled/{label}/0.png", 2)
        world.picture(f"labelled/{label}/1.png", 3)
    monkeypatch.chdir(world.folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_2(command: str, with_pictures: None) -> None:
    assert run(*COMMANDS[command], "--no-such-flag") == (2, [])


@pytest.mark.parametrize("command", READ_FILES)
def test_a_missing_file_is_2(command: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, events = run(*COMMANDS[command], "--server", world.address)
    assert (code, [event["event"] for event in events]) == (2, ["error"])


@pytest.mark.parametrize(
    "arguments",
    [
        (*COMMANDS["stylize"], "--size", "0"),
        (*COMMANDS["features"], "--size", "0"),
        (*COMMANDS["see"], "--steps", "0"),
        (*COMMANDS["train"], "--epochs", "0"),
        (*COMMANDS["embed"], "--stages", "layer9"),
        ("maps", "show", "no-such-map"),
        ("heads", "show", "no-such-head"),
        ("adjust", "no-such-run", "--style-weight", "2"),
    ],
)
def test_a_wrong_setting_or_name_is_2(arguments: tuple[str, ...], world: World, with_pictures: None) -> None:
    code, events = run(*arguments, "--server", world.address)
    assert (code, events[-1]["event"]) == (2, "error")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_server_is_1(command: str, with_pictures: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        code, events = run(*COMMANDS[command], "--server", f"127.0.0.1:{taken.getsockname()[1]}", "--wait", "0")
    assert (code, events[-1]["event"]) == (1, "error")


def test_no_command_is_2() -> None:
    assert run() == (2, [])
