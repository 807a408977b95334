"""`gramlet embed`: lays pictures out by their style, and draws the map with the pictures themselves."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from gramlet._sync.calls import Events
from gramlet._sync.client import Client
from gramlet.cli.arguments import file_path, names, nonempty, numbers, show_defaults, values_of
from gramlet.cli.detaching import add_detach, detach, note_left
from gramlet.cli.files import PICTURES, check_output, png_as, write_atomically
from gramlet.cli.mapping import as_json, comparison_lines, describe, quality_lines
from gramlet.cli.terminal import Meter, Terminal
from gramlet.embed.drawings import WIDTHS, DrawingForm
from gramlet.embed.inputs import MapOptions
from gramlet.embed.settings import Descriptor, Exactness, Gradient, MapSettings, Method, Metric, Preset, Tsne
from gramlet.embed.types import (
    Described,
    LayoutIteration,
    MapEvent,
    MeasuredItems,
    Queued,
    Reconnecting,
    RefusedItem,
    RemoteProgress,
    Started,
    StyleMap,
    Working,
)
from gramlet.errors import InvalidInput, NotFound
from gramlet.inputs.files import open_file
from gramlet.run.types import RunKind
from gramlet.types import Resize, ResizeMode

FIELDS = {
    "items": "pictures",
    "resize": "size",
    "map_id": ("resume", "map_id"),
    "from_map_id": "start_from",
    "items_of_map_id": "from_map",
}
WITH_RESUME = ("output", "grid", "html", "width", "title", "detach", "report_every", "coordinates")
HELP = "map pictures by their style"
PAGES = (".html", ".htm")
VECTORS = (".npy",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the pictures, the outputs and every setting."""
    parser.add_argument(
        "pictures", nargs="?", type=nonempty, help="a folder, whose sub-folders are labels; or vectors (N, n) as .npy"
    )
    parser.add_argument("-o", "--output", type=file_path, help="write the map as a picture: .png, .jpg, ...")
    parser.add_argument("--grid", type=file_path, metavar="FILE", help="write the pictures on a grid, without overlaps")
    parser.add_argument("--html", type=file_path, metavar="FILE", help="write a page with zoom, hover and sliders")
    parser.add_argument("--width", type=int, default=1600, help="of a drawn map, in pixels (%(default)s)")
    parser.add_argument("--title", default="", help="above the drawings")
    parser.add_argument("--map-id", metavar="NAME", help="name of the map; default: a random one")
    parser.add_argument(
        "--from-map",
        type=nonempty,
        metavar="NAME",
        help="lay out the items of this map once more, without pictures or network",
    )
    parser.add_argument(
        "--start-from", metavar="NAME", help="start t-SNE from the positions on this map, so that it stays recognizable"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also compare descriptors of these pictures by their labels, in a table"
    )
    parser.add_argument("--resume", type=nonempty, metavar="NAME", help="continue an interrupted map instead")
    add_detach(parser)
    parser.add_argument(
        "--report-every", type=int, default=10, metavar="N", help="iterations between reports (%(default)s)"
    )
    parser.add_argument("--coordinates", action="store_true", help="with --json: coordinates in every report")
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", "With the defaults of a setting that is left out.")
    group.add_argument("--preset", choices=values_of(Preset), help="classic: flattened Grams of four early stages")
    group.add_argument("--descriptor", choices=values_of(Descriptor), help="what stands for a picture")
    group.add_argument("--stages", type=names, metavar="STAGE,...", help="see `gramlet status`")
    group.add_argument("--size", type=int, help="pixels of the square that the network sees, cut from the middle (224)")
    group.add_argument("--keep-size", action="store_true", help="let the network see whole pictures of their own size")
    group.add_argument(
        "--balance-stages",
        action=argparse.BooleanOptionalAction,
        help="scale the part of each stage to length 1",
    )
    group.add_argument("--metric", choices=values_of(Metric), help="the distance between descriptors")
    group.add_argument("--exactness", choices=values_of(Exactness), help="of distances")
    group.add_argument("--sketch-size", type=int, metavar="N", help="elements of a sketch (4096; less for many items)")
    group.add_argument("--method", choices=values_of(Method), help="how descriptors become positions")
    group.add_argument("--dimensions", type=int, choices=(1, 2, 3), help="of the map")
    group.add_argument("--perplexity", type=numbers, metavar="P,...", help="one map for each")
    group.add_argument("--iterations", type=int, metavar="N", help="of t-SNE")
    group.add_argument("--early-exaggeration", type=float, metavar="F", help="of attraction at first")
    group.add_argument("--early-iterations", type=int, metavar="N", help="with it")
    group.add_argument("--learning-rate", type=float, metavar="R", help="of t-SNE (items / early exaggeration)")
    group.add_argument("--angle", type=float, help="of Barnes-Hut, 0 to 1")
    group.add_argument("--gradient", choices=values_of(Gradient), help="how repulsion is computed")
    group.add_argument("--neighbors", type=int, metavar="N", help="of umap, isomap and lle")
    group.add_argument("--seed", type=int, metavar="N", help="of everything random")
    group.add_argument("--quality-neighbors", type=int, metavar="N", help="neighborhood of the quality measures")
    show_defaults(group, MapSettings(), Tsne(), perplexity=Tsne().perplexities)


def run(arguments: argparse.Namespace, client: Client, terminal: Terminal) -> int:
    """Makes or resumes a map, shows how it goes, and writes the drawings."""
    if not WIDTHS[0] <= arguments.width <= WIDTHS[1]:
        raise InvalidInput(f"must be between {WIDTHS[0]} and {WIDTHS[1]} pixels", field="--width")
    if arguments.detach:
        return detach(_events(arguments, client), arguments, terminal, until=(MeasuredItems, RemoteProgress, StyleMap))
    _check_outputs(arguments)
    shown = Shown(terminal, arguments.coordinates)

    def left() -> None:
        if shown.measured or arguments.resume:
            note_left(arguments, client, terminal, RunKind.EMBED, arguments.resume or shown.map_id)
        elif shown.map_id:
            terminal.note("not all items had been described: nothing of this map is kept")

    with _events(arguments, client) as events:
        terminal.follow(events, "mapping", shown.show, left)
    _draw(arguments, client, terminal, shown.map_id)
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    taken = [arguments.pictures] if arguments.pictures else []
    for path, option in ((arguments.output, "--output"), (arguments.grid, "--grid")):
        if path:
            check_output(path, PICTURES, option, taken, elsewhere=dict.fromkeys(PAGES, "--html"))
            taken.append(path)
    if arguments.html:
        check_output(arguments.html, PAGES, "--html", taken, elsewhere=dict.fromkeys(PICTURES, "--output"))


def _events(arguments: argparse.Namespace, client: Client) -> Events[MapEvent, StyleMap]:
    reports: dict[str, Any] = {
        "report_every": arguments.report_every,
        "omit_coordinates": not (arguments.json and arguments.coordinates),
    }
    given = [name for name in ("pictures", "from_map", "resume") if getattr(arguments, name)]
    if len(given) != 1:
        raise InvalidInput("give one of: a folder of pictures, --from-map, --resume", field="pictures")
    if arguments.resume:
        return client.resume_map(arguments.resume, detached=arguments.detach, **reports)
    names = {"map_id": arguments.map_id, "from_map_id": arguments.start_from, "detached": arguments.detach}
    if arguments.from_map:
        return client.relayout_map(arguments.from_map, **names, **reports, **_options(arguments))
    items = arguments.pictures
    if items.lower().endswith(VECTORS):
        items = _vectors(items)
    return client.embed(items, **names, **reports, **_options(arguments))


def _vectors(path: str) -> Any:
    try:
        with open_file(path) as file:
            vectors = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", field="pictures") from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}", field="pictures") from None
    except (ValueError, EOFError):
        raise InvalidInput(f"{path} is not a file that numpy.save wrote", field="pictures") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "buif":
        found = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "several arrays"
        raise InvalidInput(f"{path} must hold an array of numbers (N, n), not {found}", field="pictures")
    return vectors


def _options(arguments: argparse.Namespace) -> Any:
    names = MapOptions.__annotations__.keys() & vars(arguments).keys()
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.keep_size:
        options["resize"] = Resize()
    elif arguments.size is not None:
        options["resize"] = Resize(ResizeMode.CENTER_CROP, arguments.size)
    return options


def _draw(arguments: argparse.Namespace, client: Client, terminal: Terminal, map_id: str) -> None:
    for form, path in (
        (DrawingForm.SCATTER, arguments.output),
        (DrawingForm.GRID, arguments.grid),
        (DrawingForm.PAGE, arguments.html),
    ):
        if path:
            data = client.draw_map(map_id, form=form, width=arguments.width, title=arguments.title)
            write_atomically(path, data if form is DrawingForm.PAGE else png_as(data, path))
            terminal.event("drawing", form=form.value, path=str(path))
            terminal.say(f"{path}: {form.value}")


class Shown:
    """Shows the events of the making of a map."""

    def __init__(self, terminal: Terminal, coordinates: bool) -> None:
        self._terminal = terminal
        self._coordinates = coordinates
        self.map_id = ""
        self.measured = False

    def show(self, event: MapEvent, meter: Meter) -> None:
        """Prints what there is to print, moves the bar."""
        self.map_id = event.map_id
        match event:
            case Queued():
                meter.update(0, None, f"waiting, {event.position} before")
            case Started():
                pass
            case Described():
                meter.update(event.described + event.refused, event.count, "pictures described")
            case RefusedItem():
                self._terminal.note(f"{event.refused.id}: {event.refused.message}")
            case MeasuredItems():
                self.measured = True
            case LayoutIteration():
                text = f"perplexity {event.perplexity:g}, KL divergence {event.kl_divergence:.3f}"
                meter.update(event.iteration, event.iterations, text)
            case RemoteProgress(progress=progress):
                meter.update(progress.done, progress.total or None, f"{progress.phase}, on another replica")
            case Working():
                meter.update(event.done, event.total, event.task.value)
            case StyleMap():
                for line in (describe(event), *quality_lines(event), *comparison_lines(event), *event.notes):
                    self._terminal.say(line)
        self._terminal.event(_NAMES[type(event)], **as_json(event))


_NAMES = {
    Queued: "queued",
    Started: "started",
    Described: "described",
    RefusedItem: "refused",
    RemoteProgress: "remoteprogress",
    Reconnecting: "reconnecting",
    MeasuredItems: "measured",
    LayoutIteration: "iteration",
    Working: "working",
    StyleMap: "result",
}
