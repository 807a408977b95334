"""`gramlet maps`: lists, shows, draws and deletes maps of style, and places new pictures on them."""

from __future__ import annotations

import argparse

from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path
from gramlet.cli.embed import PAGES
from gramlet.cli.files import PICTURES, check_output, png_as, write_atomically
from gramlet.cli.mapping import as_json, comparison_lines, describe, quality_lines
from gramlet.cli.pictures import show_failure
from gramlet.cli.terminal import Terminal, local_time
from gramlet.errors import GramletError, InvalidInput, counted

FIELDS = {"map_id": "map", "items": "pictures"}
OF_ACTIONS = {
    "map": ("show", "draw", "place", "delete"),
    "pictures": ("place",),
    **dict.fromkeys(("output", "grid", "layout", "width", "title"), ("draw",)),
}
HELP = "list, show, draw or delete maps, or place pictures on one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to do, and with which map."""
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "draw", "place", "delete"))
    parser.add_argument("map", nargs="?", help="its name")
    parser.add_argument("pictures", nargs="*", help="place: new pictures")
    parser.add_argument("-o", "--output", type=file_path, help="draw: where to write, .png, .jpg, ... or .html")
    parser.add_argument("--grid", action="store_true", help="draw: the pictures on a grid")
    parser.add_argument("--layout", type=int, metavar="N", help="draw: this layout alone, counted from 0")
    parser.add_argument("--width", type=int, default=1600, help="draw: of one layout, in pixels (%(default)s)")
    parser.add_argument("--title", default="", help="draw: above the map")


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Does it; 1 if some of several pictures could not be placed."""
    if arguments.action == "list":
        return _list(client, terminal)
    if not arguments.map:
        raise InvalidInput(f"say which map to {arguments.action}", field="map")
    actions = {"show": _show, "draw": _draw, "place": _place, "delete": _delete}
    return actions[arguments.action](arguments, client, terminal)


def _list(client: Client, terminal: Terminal) -> int:
    for summary in client.maps():
        terminal.event("map", **as_json(summary))
        created = local_time(summary.created)
        state = "" if summary.finished else ", not finished"
        terminal.say(f"{summary.map_id}: {counted(summary.items, 'item')} by {summary.method.value}, {created}{state}")
    return 0


def _show(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    style_map = client.map(arguments.map)
    terminal.event("map", **as_json(style_map))
    for line in (
        describe(style_map),
        *quality_lines(style_map),
        *comparison_lines(style_map),
        *style_map.notes,
    ):
        terminal.say(line)
    return 0


def _draw(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    if arguments.output is None:
        raise InvalidInput("say where to write it", field="--output")
    check_output(arguments.output, (*PICTURES, *PAGES), "--output")
    is_page = arguments.output.suffix.lower() in PAGES
    form = "page" if is_page else "grid" if arguments.grid else "scatter"
    data = client.draw_map(
        arguments.map, form=form, layout=arguments.layout, width=arguments.width, title=arguments.title
    )
    write_atomically(arguments.output, data if is_page else png_as(data, arguments.output))
    terminal.event("drawing", form=form, path=str(arguments.output))
    terminal.say(f"{arguments.output}: {form}")
    return 0


def _place(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    if not arguments.pictures:
        raise InvalidInput("give the pictures to place", field="pictures")
    failed = 0
    for picture, outcome in zip(arguments.pictures, client.transform(arguments.map, arguments.pictures), strict=True):
        if isinstance(outcome, GramletError):
            failed += 1
            show_failure(picture, outcome, terminal)
            continue
        terminal.event("position", **as_json(outcome))
        where = "; ".join(", ".join(f"{number:.2f}" for number in row) for row in outcome.coordinates)
        near = f", nearest {outcome.neighbors[0].id}" if outcome.neighbors else ""
        terminal.say(f"{picture}: {where}{near}")
    return 1 if failed else 0


def _delete(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    client.delete_map(arguments.map)
    terminal.event("deleted", map=arguments.map)
    terminal.say(f"{arguments.map} deleted")
    return 0
