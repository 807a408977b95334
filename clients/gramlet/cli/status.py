"""`gramlet status`: health, network, device and load of a server."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rich.table import Table
from rich.text import Text

from gramlet._sync.client import Client
from gramlet.cli.terminal import Terminal
from gramlet.errors import DeadlineExceeded, Unavailable, printable
from gramlet.health import FEATURE, STYLIZE, Health, ServerStatus
from gramlet.json_codec import plain
from gramlet.stylize.types import StylizeStatus

HELP = "show health, network, device and load of the server"
_POLL_SECONDS = 0.5
_STYLES = {Health.SERVING: "green", Health.NOT_OFFERED: "dim", Health.NOT_SERVING: "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how long to wait."""
    parser.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=60.0,
        default=0.0,
        metavar="SECONDS",
        help="until every service serves, but not longer than this (%(const)g)",
    )


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Shows the status; 1 if a service that is offered does not serve."""
    status = _awaited(client, min(arguments.wait, arguments.timeout or arguments.wait))
    terminal.event("status", **_values(status))
    terminal.table(_table(status))
    return 0 if status.is_serving else 1


def _awaited(client: Client, wait: float) -> ServerStatus:
    """The status as soon as all services serve, or when the wait is over.

    Raises:
        Unavailable: No server answers then.
    """
    until = time.monotonic() + wait
    while True:
        left = max(until - time.monotonic(), _POLL_SECONDS)
        try:
            status = client.status(timeout=left if wait else None)
            if status.is_serving or time.monotonic() >= until:
                return status
        except DeadlineExceeded:
            raise Unavailable(f"no answer from {client.address} in {wait:g} s") from None
        except Unavailable:
            if time.monotonic() >= until:
                raise
        time.sleep(_POLL_SECONDS)


def _table(status: ServerStatus) -> Table:
    table = Table(title=status.address, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("service", "health", "about", "load"):
        table.add_column(column, overflow="fold")  # a digest is to be copied whole
    for service, health in status.health.items():
        health_text = Text(health.value, _STYLES.get(health, "red"))
        about = "\n".join(map(printable, _about(service, status).split("\n")))
        table.add_row(_short(service), health_text, about, _load(service, status))
    return table


def _about(service: str, status: ServerStatus) -> str:
    if reason := status.reasons.get(service):
        return reason
    if service == FEATURE and status.model:
        model = status.model
        stages = ", ".join(f"{stage.name} ({stage.channels})" for stage in model.stages)
        return (
            f"{model.backbone} on {model.device}, {model.precision}\n"
            f"weights {model.weights_source} ({model.weights_digest})\n{stages}"
        )
    if service == STYLIZE and status.stylize:
        return f"presets {', '.join(status.stylize.presets)}\nfeatures {status.stylize.features}"
    return ""


def _load(service: str, status: ServerStatus) -> str:
    if service == FEATURE and status.model:
        load = status.model.load
        return (
            f"{load.queued} of {load.queue_limit} queued, {load.callers} callers\n"
            f"{load.descents_running} of {load.descents_limit} descents, {load.descents_queued} queued\n"
            f"{load.device_seconds:.1f} s of device"
        )
    if service == STYLIZE and status.stylize:
        load_of = status.stylize
        return f"{load_of.running} of {load_of.running_limit} running\n{load_of.queued} of {load_of.queue_limit} queued"
    return ""


def _short(service: str) -> str:
    return service.rsplit(".", 1)[-1].removesuffix("Service").lower()


def _load_of(stylize: StylizeStatus | None) -> Any:
    """All but the settings of presets, which `gramlet presets` shows."""
    values = plain(stylize)
    return values and {name: value for name, value in values.items() if name != "preset_settings"}


def _values(status: ServerStatus) -> dict[str, Any]:
    return {
        "address": status.address,
        "services": {_short(service): health.value for service, health in status.health.items()},
        "reasons": {_short(service): reason for service, reason in status.reasons.items()},
        "model": plain(status.model),
        "stylize": _load_of(status.stylize),
    }
