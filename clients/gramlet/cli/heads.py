"""`gramlet heads`: lists, shows, deletes and exports trained heads."""

from __future__ import annotations

import argparse

from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path
from gramlet.cli.files import check_output, write_atomically
from gramlet.cli.terminal import Terminal
from gramlet.cli.training import describe, finding_lines, report_lines
from gramlet.errors import InvalidInput
from gramlet.json_codec import plain
from gramlet.types import short_digest

FIELDS = {"name": "head"}
OF_ACTIONS = {"output": ("export",), "with_backbone": ("export",)}
HELP = "list, show, delete or export trained heads"
_FORMATS = {".safetensors": "safetensors", ".onnx": "onnx"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to do, and with which head."""
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "delete", "export"))
    parser.add_argument("head", nargs="?", help="name, or name/version")
    parser.add_argument("-o", "--output", type=file_path, help="export: where to write, .safetensors or .onnx")
    parser.add_argument("--with-backbone", action="store_true", help="export: the network too, in one ONNX graph")


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Does it."""
    if arguments.action == "list":
        for head in client.heads(arguments.head or ""):
            terminal.event("head", **plain(head))
            terminal.say(describe(head))
        return 0
    if not arguments.head:
        raise InvalidInput(f"say which head to {arguments.action}", field="head")
    {"show": _show, "delete": _delete, "export": _export}[arguments.action](arguments, client, terminal)
    return 0


def _show(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    head = client.head(arguments.head).head
    terminal.event("head", **plain(head))
    terminal.say(describe(head))
    terminal.say(f"network {head.backbone}, weights {short_digest(head.weights_digest)}, run {head.run_id}")
    for report in head.outcome.reports:
        for line in report_lines(report):
            terminal.say(line)
    for line in finding_lines(head.findings):
        terminal.say(line)
    for warning in head.findings.warnings:
        terminal.say(f"note: {warning}")


def _delete(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    client.delete_head(arguments.head)
    terminal.event("deleted", head=arguments.head)
    terminal.say(f"{arguments.head} deleted")


def _export(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> None:
    if arguments.output is None:
        raise InvalidInput("say where to write it", field="--output")
    check_output(arguments.output, list(_FORMATS), "--output")
    file_format = _FORMATS[arguments.output.suffix.lower()]
    data = client.export_head(arguments.head, format=file_format, with_backbone=arguments.with_backbone)
    write_atomically(arguments.output, data)
    terminal.event("exported", head=arguments.head, path=str(arguments.output), bytes=len(data))
    terminal.say(f"{arguments.output}: {len(data) / 1e6:.1f} MB")
