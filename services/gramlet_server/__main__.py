"""`gramlet-server`: the command line of a server process. `services.py` says how each service is built."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from gramlet.errors import GramletError, InvalidInput

from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.process.garbage import keep_for_good
from gramlet_server.process.openmp import bound_spinning
from gramlet_server.runtime import logs
from gramlet_server.runtime.command_line import TOKEN, read, read_token_command
from gramlet_server.runtime.config import Settings, format_address, read_settings
from gramlet_server.runtime.group import end_with_group, serve_group
from gramlet_server.runtime.output import note, say
from gramlet_server.runtime.probe import probe
from gramlet_server.runtime.process import serve
from gramlet_server.runtime.server import Server
from gramlet_server.runtime.studio import check_studio, studio
from gramlet_server.runtime.tokens import new_token
from gramlet_server.services import Shared, services_of


def weights(settings: Settings) -> int:
    """Fetches and checks the weights, for an image or a machine that starts later without access to them."""
    from gramlet_server.backbone.weights import load

    loaded = load(settings.network.backbone, settings.network.weights)
    say(f"gramlet-server: {loaded.backbone}, weights {loaded.source}, digest {loaded.digest}")
    return 0


def token(arguments: Sequence[str]) -> int:
    """Makes a token for a name. The token goes to standard output, and is stored nowhere.

    Raises:
        InvalidInput: The name or the scopes cannot be used.
        SystemExit: A wrong command line, which is explained on stderr, or `--help`.
    """
    parsed = read_token_command(arguments)
    made, line = new_token(parsed.name, parsed.scopes)
    say(made)
    print(f"# The line for --token-file, which does not contain the token:\n{line}", file=sys.stderr)
    return 0


COMMANDS: dict[str, Callable[[Settings], int]] = {
    "probe": lambda settings: probe(settings.server),
    "weights": weights,
}


def main(arguments: Sequence[str] | None = None, shared: Callable[[Settings], Shared] = Shared) -> int:
    """Runs `gramlet-server`.

    Args:
        arguments: The command line, without the program's name; by default that of the process.
        shared: Makes what the services share.

    Returns:
        The exit code: 0, 1 if something failed, 2 for a wrong command line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    bound_spinning()
    try:
        if list(arguments[:1]) == [TOKEN]:
            return token(arguments[1:])
        names, settings = parse(arguments)
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.server.log_format, settings.server.log_level)
    if settings.queue.workers > 1:
        return serve_group(arguments, settings.queue.workers, settings.server)
    try:
        return COMMANDS[names[0]](settings) if names[0] in COMMANDS else _serve(names, shared(settings))
    except GramletError as error:
        print(f"gramlet-server: {error}", file=sys.stderr)
        return 1


def parse(arguments: Sequence[str]) -> tuple[list[str], Settings]:
    """Reads a command line and the GRAMLET_* variables; returns the services, or one of COMMANDS, and the settings.

    Raises:
        InvalidInput: Flags that contradict each other.
        FailedPrecondition: The studio is wanted and not installed.
        SystemExit: A wrong command line, which is explained on stderr, or `--help`.
    """
    parsed = read(arguments, os.environ)
    names, settings = parsed.services, read_settings(parsed, os.environ)
    if names[0] in COMMANDS:
        return names, settings
    if "feature" not in names and not settings.features.features:
        message = f"{' and '.join(names)} needs a network: its address here, or serve `feature` (or `all`) as well"
        raise InvalidInput(message, field="--features")
    if settings.queue.workers > 1 and names != ["feature"]:
        raise InvalidInput("several processes serve `feature` alone: start other services beside it", field="--workers")
    if "feature" in names and settings.features.features:
        raise InvalidInput("not together with `feature`, which has the network in this process", field="--features")
    if _shows_studio(names, settings):
        check_studio(settings)
    return names, settings


def _serve(names: Sequence[str], shared: Shared) -> int:
    if not shared.settings.features.features:
        ALLOCATOR.keep_large_blocks()
    if shared.settings.server.shares_port:
        end_with_group()
    code = serve(services_of(names, shared), shared.settings.server, shared.metrics, partial(_beside, names, shared))
    shared.close()
    return code


@contextmanager
def _beside(names: Sequence[str], shared: Shared, server: Server) -> Iterator[None]:
    """Says that the server is ready, and serves the page if that was asked for."""
    keep_for_good()
    settings = shared.settings
    note(_ready_line(names, shared, server))
    if not _shows_studio(names, settings):
        yield
        return
    with studio(settings.studio, settings.server.host, server.port) as url:
        note(f"gramlet-server: the studio is at {url}")
        yield


def _shows_studio(names: Sequence[str], settings: Settings) -> bool:
    return settings.studio.studio and names != ["feature"]


def _ready_line(names: Sequence[str], shared: Shared, server: Server) -> str:
    settings = shared.settings
    if settings.features.features:
        network = f"features from {settings.features.features}"
    else:
        model = shared.features.model()
        network = f"{model.backbone}, {model.device}, weights {model.weights_source}"
    address = format_address(settings.server.host, server.port)
    line = f"gramlet-server: serving {', '.join(names)} on {address} ({network})"
    if server.metrics_port:
        line += f", metrics on {format_address(settings.server.host, server.metrics_port)}"
    return line


if __name__ == "__main__":
    sys.exit(main())
