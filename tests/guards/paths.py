"""Which hand-written files one call of every RPC enters, from the public SDK to where the work is done.

`python -m tests.guards.paths` prints them in the order in which they are entered, with the median and the worst call.
Use its output to write docs/architecture.md, and its last table to lower the ceilings in test_paths.py.

A file is entered when one of its functions is called, in any thread. Not counted: what a module does when it is
imported, generated code, `runtime/` (it wraps every call alike) and `backbone/` (the network). Each call is made once
before it is traced, so that what is only done the first time does not count either.
"""

from __future__ import annotations

import inspect
import io
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import gramlet
import numpy as np
from google.protobuf.descriptor_pool import Default
from gramlet import DescentStart
from PIL import Image

from tests.guards.product import ROOT, serving_all

SOURCES = ("clients/gramlet", "services/gramlet_server")
NOT_COUNTED = re.compile(r"_pb2(_grpc)?\.py$|^services/gramlet_server/(runtime|backbone)/")
QUIET_SECONDS = 0.1
"""After a call, what the server still does for it has ended when no function was entered for so long."""

HOUSEKEEPING = ("rescue-", "sweep-", "watch-", "memory", "gramlet-silence")
"""Names of the threads that look after the store, the memory and silent servers. What they enter belongs to no call."""

Paths = dict[str, tuple[str, ...]]
"""The files that a call enters, in order, by RPC: `gramlet.stylize.v1.StylizeService/Stylize`."""


class Tracer:
    """Collects the hand-written files that are entered, in every thread started while it is installed."""

    def __init__(self) -> None:
        self._file_of: dict[CodeType, str | None] = {}
        self._entered: dict[str, None] = {}
        self._calls = count()
        self._last = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Traces this thread, and those that start inside."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # the stubs leave None out

    def files_of(self, call: Callable[[], object]) -> tuple[str, ...]:
        """The files that a call enters, in the order of their first entry."""
        self._wait_until_quiet()
        self._entered.clear()
        call()
        self._wait_until_quiet()
        return tuple(self._entered)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in self._file_of:
            self._file_of[code] = _counted(code)
        if file := self._file_of[code]:
            self._last = next(self._calls)
            if file not in self._entered and not threading.current_thread().name.startswith(HOUSEKEEPING):
                self._entered[file] = None

    def _wait_until_quiet(self) -> None:
        seen = -1
        while seen != self._last:
            seen = self._last
            time.sleep(QUIET_SECONDS)


def _counted(code: CodeType) -> str | None:
    """The file of a function, from the repository's root; None where it does not count."""
    # Bodies of modules and classes, which run at import, are not optimized; functions are.
    if not code.co_flags & inspect.CO_OPTIMIZED or not code.co_filename.startswith(str(ROOT)):
        return None
    file = str(Path(code.co_filename).relative_to(ROOT))
    return file if file.startswith(SOURCES) and not NOT_COUNTED.search(file) else None


@dataclass
class World:
    """A client, and the pictures that its calls are about. No picture is used twice: the server would know it."""

    client: gramlet.Client
    numbers: Iterator[int] = field(default_factory=count)

    def picture(self, color: tuple[int, int, int] = (120, 120, 120)) -> bytes:
        """A small PNG that nobody has seen before."""
        random = np.random.default_rng(next(self.numbers))
        pixels = np.array(color) + random.normal(0, 30, (64, 64, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    def labelled(self) -> dict[str, list[bytes]]:
        """A few pictures of two classes."""
        return {
            "red": [self.picture((200, 60, 60)) for _ in range(4)],
            "blue": [self.picture((60, 60, 200)) for _ in range(4)],
        }

    def head(self) -> str:
        """Trains a head; returns `name/version`."""
        events = self.client.train(self.labelled(), name="colors", size=64, epochs=2)
        head = list(events)[-1].head  # type: ignore[union-attr]  # the last event is the result
        return f"{head.name}/{head.version}"

    @cached_property
    def some_head(self) -> str:
        """A head for calls that leave it as it is."""
        return self.head()

    @cached_property
    def some_map(self) -> str:
        """A map for calls that leave it as it is."""
        return self.map()

    def map(self) -> str:
        """Makes a map; returns its name."""
        pictures = [self.picture() for _ in range(6)]
        events = self.client.embed(pictures, perplexity=1.5, iterations=20, early_iterations=10, stages=["conv1"])
        return list(events)[-1].map_id

    def stylized(self, iterations: int = 3, **options: Any) -> gramlet.Stylizing:
        """Begins a stylization."""
        return self.client.stylize(self.picture(), self.picture(), size=64, iterations=iterations, **options)

    def stylization(self) -> str:
        """A finished stylization."""
        events = self.stylized()
        events.result()
        return events.run_id

    @cached_property
    def some_run(self) -> str:
        """A run for calls that leave it as it is."""
        return self.stylization()

    def broken_off(self) -> str:
        """A stylization that was left after its first checkpoint, and that nobody works on."""
        with self.stylized(10_000, state_seconds=1e-9) as events:
            next(event for event in events if isinstance(event, gramlet.Checkpoint))
        while (status := self.client.status().stylize) and status.running:
            time.sleep(QUIET_SECONDS)
        return events.run_id


def _differentiate(world: World) -> None:
    content, point = _floats(world), _floats(world)
    objective = gramlet.Objective(content=content, content_stage="layer1", content_weight=1.0)
    with world.client.differentiate(objective) as differentiation:
        differentiation.evaluate(point)


def _descend(world: World) -> None:
    objective = gramlet.Objective(content=_floats(world), content_stage="layer1", content_weight=1.0)
    start = DescentStart(objective=objective, iterations=2, initial=_floats(world), preview_every=1, state_seconds=1e-9)
    with world.client.descend(start) as descent:
        list(descent)


def _see(world: World) -> None:
    pictures = [world.picture(), world.picture()]
    list(world.client.see("layer1", 5, pictures, resize=64, steps=2, optimized_size=48, preview_every=1))


def _floats(world: World) -> Any:
    with Image.open(io.BytesIO(world.picture())) as image:
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


# One successful call of each RPC. What a call needs is prepared by the first function, untraced, and handed to the
# second. A client cannot ask for GetStatus alone: `status` asks for the health of all services and the model as well.
Prepare = Callable[[World], Any]
Call = Callable[[World, Any], object]
_FEATURE, _STYLIZE = "gramlet.feature.v1.FeatureService", "gramlet.stylize.v1.StylizeService"
_TRAIN, _EMBED = "gramlet.train.v1.TrainService", "gramlet.embed.v1.EmbedService"
_RUN = "gramlet.run.v1.RunService"
CALLS: dict[str, tuple[Prepare, Call]] = {
    f"{_FEATURE}/GetModel": (lambda w: None, lambda w, _: w.client.model()),
    f"{_FEATURE}/Extract": (World.picture, lambda w, picture: w.client.features(picture, stages="layer1", gram=True)),
    f"{_FEATURE}/ExtractStream": (
        lambda w: [w.picture(), w.picture()],
        lambda w, pictures: list(w.client.features(pictures, stages="layer1", gram=True)),
    ),
    f"{_FEATURE}/Differentiate": (lambda w: None, lambda w, _: _differentiate(w)),
    f"{_FEATURE}/Descend": (lambda w: None, lambda w, _: _descend(w)),
    f"{_FEATURE}/See": (lambda w: None, lambda w, _: _see(w)),
    f"{_STYLIZE}/Stylize": (lambda w: None, lambda w, _: list(w.stylized())),
    f"{_STYLIZE}/Adjust": (World.broken_off, lambda w, run: w.client.adjust(run, style_weight=2.0)),
    f"{_STYLIZE}/Sweep": (
        lambda w: (w.picture(), w.picture()),
        lambda w, two: list(w.client.sweep(*two, size=64, iterations=2, ratios=[1.0], deepest_stages=["layer1"])),
    ),
    f"{_STYLIZE}/GetStatus": (lambda w: None, lambda w, _: w.client.status()),
    f"{_TRAIN}/Train": (
        World.labelled,
        lambda w, pictures: list(w.client.train(pictures, name="colors", size=64, epochs=2)),
    ),
    f"{_TRAIN}/Predict": (lambda w: (w.head(), w.picture()), lambda w, two: w.client.predict(*two)),
    f"{_TRAIN}/GetHead": (lambda w: w.some_head, lambda w, head: w.client.head(head)),
    f"{_TRAIN}/ListHeads": (lambda w: w.some_head, lambda w, _: w.client.heads()),
    f"{_TRAIN}/DeleteHead": (World.head, lambda w, head: w.client.delete_head(head)),
    f"{_TRAIN}/ExportHead": (lambda w: w.some_head, lambda w, head: w.client.export_head(head)),
    f"{_EMBED}/Embed": (lambda w: None, lambda w, _: w.map()),
    f"{_EMBED}/Transform": (lambda w: (w.map(), w.picture()), lambda w, two: list(w.client.transform(*two))),
    f"{_EMBED}/DrawMap": (lambda w: w.some_map, lambda w, name: w.client.draw_map(name, width=200)),
    f"{_EMBED}/GetMap": (lambda w: w.some_map, lambda w, name: w.client.map(name)),
    f"{_EMBED}/ListMaps": (lambda w: w.some_map, lambda w, _: w.client.maps()),
    f"{_EMBED}/DeleteMap": (World.map, lambda w, name: w.client.delete_map(name)),
    f"{_RUN}/ListRuns": (lambda w: w.some_run, lambda w, _: list(w.client.runs(kind="stylize"))),
    f"{_RUN}/GetRun": (lambda w: w.some_run, lambda w, run: w.client.run(run, "stylize").info()),
    f"{_RUN}/StopRun": (World.broken_off, lambda w, run: w.client.run(run, "stylize").stop()),
    f"{_RUN}/DeleteRun": (World.stylization, lambda w, run: w.client.run(run, "stylize").delete()),
}


def rpcs() -> list[str]:
    """Every RPC of the project's .proto files."""
    protos = ROOT / "protos"
    files = [Default().FindFileByName(str(path.relative_to(protos))) for path in sorted(protos.rglob("*.proto"))]
    services = [service for file in files for service in file.services_by_name.values()]
    return [f"{service.full_name}/{method.name}" for service in services for method in service.methods]


def measured() -> Paths:
    """The files that one call of each RPC enters."""
    tracer = Tracer()
    with tempfile.TemporaryDirectory() as store, tracer.installed(), _world(store) as world:
        return {rpc: _files_of(tracer, world, *CALLS[rpc]) for rpc in CALLS}


@contextmanager
def _world(store: str) -> Iterator[World]:
    flags = ("--weights", "random:0", "--store", store, "--keep-runs-days", "0", "--log-level", "ERROR")
    with serving_all(*flags) as address, gramlet.Client(address, timeout=60) as client:
        yield World(client)


def _files_of(tracer: Tracer, world: World, prepare: Prepare, call: Call) -> tuple[str, ...]:
    call(world, prepare(world))
    given = prepare(world)
    return tracer.files_of(lambda: call(world, given))


def table(paths: Paths) -> str:
    """The files of each RPC as a Markdown list, and a table of how many they are, most first."""
    lines = []
    for rpc, files in paths.items():
        lines += [f"### {rpc}", "", *(f"- `{file}`" for file in files), ""]
    counts = {rpc: len(files) for rpc, files in paths.items()}
    lines += ["| RPC | files |", "|---|---|"]
    lines += [f"| {rpc} | {number} |" for rpc, number in sorted(counts.items(), key=lambda item: -item[1])]
    return "\n".join([*lines, "", f"median {statistics.median(counts.values()):g}, worst {max(counts.values())}"])


if __name__ == "__main__":
    print(table(measured()))
