"""The one place where the guards name hand-written modules. After a move of modules, change these lines and no others.

`..._wire` is where messages are encoded and decoded, `..._types` where the dataclasses are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import gramlet.embed.drawings
import gramlet.embed.map_wire
import gramlet.embed.settings
import gramlet.embed.types
import gramlet.embed.wire
import gramlet.feature.descent_types
import gramlet.feature.descent_wire
import gramlet.feature.objective_wire
import gramlet.feature.see_types
import gramlet.feature.see_wire
import gramlet.feature.types
import gramlet.feature.wire
import gramlet.train.configuration
import gramlet.train.head_wire
import gramlet.train.predictions
import gramlet.train.types
import gramlet.train.wire
from gramlet import types as shared_types
from gramlet.cli import __main__ as client_command_line
from gramlet.run import types as run_types
from gramlet.run import wire as run_wire
from gramlet.stylize import sweep_types as stylize_sweep_types
from gramlet.stylize import sweep_wire
from gramlet.stylize import types as stylize_types
from gramlet.stylize import wire as stylize_wire
from gramlet.tensor import parts as parts_wire
from gramlet.tensor import wire as tensor_wire
from gramlet_server import __main__ as command_line
from gramlet_server import services as composition
from gramlet_server.runtime import server as runtime_server

__all__ = [
    "ROOT",
    "embed_types",
    "embed_wire",
    "feature_types",
    "feature_wire",
    "gramlet_command",
    "gramlet_server_command",
    "parts_wire",
    "run_types",
    "run_wire",
    "serving_all",
    "shared_types",
    "stylize_sweep_types",
    "stylize_types",
    "stylize_wire",
    "sweep_wire",
    "tensor_wire",
    "train_types",
    "train_wire",
]


def _together(*modules: ModuleType) -> Any:
    """The names of several modules, as of one."""
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


embed_types = _together(gramlet.embed.drawings, gramlet.embed.settings, gramlet.embed.types)
embed_wire = _together(gramlet.embed.map_wire, gramlet.embed.wire)
feature_types = _together(gramlet.feature.types, gramlet.feature.descent_types, gramlet.feature.see_types)
feature_wire = _together(
    gramlet.feature.wire, gramlet.feature.objective_wire, gramlet.feature.descent_wire, gramlet.feature.see_wire
)
train_types = _together(gramlet.train.configuration, gramlet.train.predictions, gramlet.train.types)
train_wire = _together(gramlet.train.head_wire, gramlet.train.wire)

ROOT = Path(__file__).parents[2]


def gramlet_command(arguments: Sequence[str]) -> int:
    """Runs a command line of `gramlet` in this process; returns its exit code."""
    return _run(client_command_line.main, arguments)


def gramlet_server_command(arguments: Sequence[str]) -> int:
    """Runs a command line of `gramlet-server` in this process; returns its exit code."""
    return _run(command_line.main, arguments)


@contextmanager
def serving_all(*flags: str) -> Iterator[str]:
    """The server of `gramlet-server all` with these flags, in this process on a free port. Yields its address."""
    names, settings = command_line.parse(["all", "--port", "0", "--device", "cpu", *flags])
    shared = composition.Shared(settings)
    services = composition.services_of(names, shared)
    server = runtime_server.Server(services, settings.server, shared.metrics)
    built: SimpleQueue[Exception | None] = SimpleQueue()
    server.start(built.put)
    try:
        failure = built.get(timeout=120)
        if failure is not None:
            raise failure
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop(drain_seconds=0)
        shared.close()


def _run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
