"""What the page hears of a run: an event of gramlet as a line of JSON, and the pictures beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

from gramlet.embed import types as embed
from gramlet.json_codec import plain, to_line
from gramlet.stylize import sweep_types as sweep
from gramlet.stylize import types as stylize
from gramlet.train import types as train

_DIGITS = 3  # of coordinates: a thousandth of t-SNE's unit is far below a pixel


@dataclass(frozen=True)
class PageEvent:
    """An event for the page.

    Attributes:
        name: Of the event.
        line: JSON in one line, with the name of the event as `event`.
        replaces: Events of this name are out of date once this one is there; empty: every event is kept.
        blobs: Pictures that came with it, by name: the page fetches them.
    """

    name: str
    line: str
    replaces: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)


def page_event(name: str, replaces: str = "", blobs: dict[str, bytes] | None = None, /, **values: Any) -> PageEvent:
    """An event with these values."""
    return PageEvent(name, to_line(name, **values), replaces, blobs or {})


@singledispatch
def described(event: Any) -> PageEvent:
    """The event as the page takes it."""
    return page_event(_name(event), **plain(event, keep_none=False))


def _name(event: Any) -> str:
    name = type(event).__name__
    return name[0].lower() + name[1:]


@described.register
def _(event: stylize.Iteration) -> PageEvent:
    return page_event(
        "iteration",
        iteration=event.iteration,
        loss=event.loss,
        style=event.style_loss,
        content=event.content_loss,
        variation=event.total_variation_loss,
    )


@described.register
def _(event: stylize.Preview) -> PageEvent:
    return page_event("preview", "preview", {"preview": event.jpeg}, iteration=event.iteration)


@described.register
def _(event: stylize.Checkpoint) -> PageEvent:
    return page_event("checkpoint", "checkpoint", iteration=event.iteration)


@described.register
def _(event: stylize.Queued) -> PageEvent:
    return page_event("queued", "queued", position=event.position)


@described.register
def _(event: stylize.RemoteProgress) -> PageEvent:
    return page_event("progress", "progress", done=event.iteration, total=event.total, loss=event.loss)


@described.register
def _(event: stylize.Result) -> PageEvent:
    return page_event(
        "result",
        "",
        {"result": event.png},
        iteration=event.iteration,
        loss=event.loss,
        seconds=event.timing.compute_seconds,
    )


@described.register
def _(event: sweep.SweepCell) -> PageEvent:
    cell: dict[str, Any] = {
        "row": event.row,
        "column": event.column,
        "deepestStage": event.deepest_stage,
        "ratio": event.ratio,
    }
    where = f"{event.row}-{event.column}"
    match event.event:
        case stylize.Result() as result:
            return page_event("cell", "", {f"cell-{where}": result.png}, **cell, done=True, loss=result.loss)
        case inner:
            return page_event("cell", f"cell-{where}", **cell, done=False, iteration=inner.iteration)


@described.register
def _(event: sweep.SweepResult) -> PageEvent:
    return page_event("result", "", {"result": event.png})


@described.register
def _(event: train.Result) -> PageEvent:
    return page_event(
        "result",
        "",
        {"curves": event.learning_curves},
        head=plain(event.head, keep_none=False),
        featureSeconds=event.feature_seconds,
        fitSeconds=event.fit_seconds,
    )


@described.register
def _(event: train.Accepted) -> PageEvent:
    return page_event("accepted", pictures=event.pictures, wanted=len(event.wanted))


@described.register
def _(event: train.Extracting) -> PageEvent:
    return page_event("extracting", "extracting", **plain(event))


@described.register
def _(event: embed.Described) -> PageEvent:
    return page_event("described", "described", **plain(event))


@described.register
def _(event: embed.Working) -> PageEvent:
    return page_event("working", "working", **plain(event))


@described.register
def _(event: embed.LayoutIteration) -> PageEvent:
    return page_event("layout", "layout", **plain(event, digits=_DIGITS))


@described.register
def _(event: embed.StyleMap) -> PageEvent:
    return page_event("result", "layout", **plain(event, digits=_DIGITS))
