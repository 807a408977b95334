"""`gramlet adjust`: changes the weights of a stylization that is under way."""

from __future__ import annotations

import argparse

from gramlet._sync.client import Client
from gramlet.cli.stylization import add_weights
from gramlet.cli.terminal import Terminal
from gramlet.json_codec import plain

FIELDS = {"run_id": "run"}
HELP = "change the weights of a stylization under way"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the run and its weights."""
    parser.add_argument("run", help="name of the run, which its progress and its events show")
    add_weights(parser.add_argument_group("weights", "What is left out stays; a stage of weight 0 is left out."))


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Records the change and shows the weights that will be in force."""
    settings = client.adjust(
        arguments.run,
        content_weight=arguments.content_weight,
        style_weight=arguments.style_weight,
        total_variation_weight=arguments.total_variation_weight,
        style_stages=arguments.style_stages,
    )
    stages = ", ".join(f"{stage} {weight:g}" for stage, weight in (settings.style_stages or {}).items())
    terminal.say(
        f"run {arguments.run}: content {settings.content_weight:g}, style {settings.style_weight:g} ({stages}), "
        f"total variation {settings.total_variation_weight:g}"
    )
    terminal.event("adjusting", run_id=arguments.run, settings=plain(settings, keep_none=False))
    return 0
