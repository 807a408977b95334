"""Stylizations: ordering them, changing their weights while they run, and going on with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gramlet import AsyncEvents, PictureInput, Style
from gramlet.errors import InvalidInput, NotFound
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet.stylize.inputs import StylizeOptions
from gramlet.types import new_name
from gramlet_studio.context import Studio, in_thread, json_of, list_of, object_of, studio_of, text_of

PREVIEWS = 40
"""Previews that a stylization of usual length sends."""
PREVIEW_SIDE = 2048
"""Previews are as large as the picture: another run may start from one."""
MOST_STYLES = 4
ADJUSTABLE = ("content_weight", "style_weight", "total_variation_weight")


async def order(request: Request) -> Response:
    """Orders a stylization: `{content, styles, settings, initial}`.

    A style is `{picture, weight, content_region, style_region}`; pictures and regions are ids of the library.
    """
    run_id = await start(studio_of(request), await json_of(request))
    return JSONResponse({"run": run_id}, 201)


async def start(studio: Studio, asked: dict[str, Any]) -> str:
    """Starts the stylization that was asked for; returns the id of its run when the server has taken it.

    Raises:
        GramletError: It was rejected.
    """
    content, styles, settings = await in_thread(read_order, studio, asked)
    given = asked.get("initial")
    initial = await in_thread(studio.library.path, text_of(asked, "initial"), "initial") if given else None
    run_id = new_name()
    # Detached: the run goes on whatever happens to this process or to the browser.
    events = studio.client.stylize(
        content,
        styles,
        initial=initial,
        run_id=run_id,
        detached=True,
        preview_every=preview_every(settings),
        preview_side=PREVIEW_SIDE,
        **settings,
    )
    await begin(studio, RunKind.STYLIZE, events, asked)
    return run_id


async def adjust(request: Request) -> Response:
    """Changes the weights of a run under way; returns the settings that will be in force."""
    asked = await json_of(request)
    weights = {name: asked[name] for name in ADJUSTABLE if asked.get(name) is not None}
    settings = await studio_of(request).client.adjust(request.path_params["run"], **weights)
    return JSONResponse({"settings": plain(settings)})


async def resume(request: Request) -> Response:
    """Goes on with a run that was stopped or interrupted."""
    studio, run_id = studio_of(request), request.path_params["run"]
    known = await in_thread(studio.library.load, "orders/stylize", run_id) or {}
    every = preview_every(known.get("settings", {}))
    events = studio.client.resume(run_id, detached=True, preview_every=every, preview_side=PREVIEW_SIDE)
    await studio.feeds.resume(RunKind.STYLIZE, events)
    return JSONResponse({"run": run_id}, 201)


async def fork(request: Request) -> Response:
    """Keeps the newest picture of a run, to start another run from: `{picture}`."""
    studio, run_id = studio_of(request), request.path_params["run"]
    picture = await newest_picture(studio, run_id)
    return JSONResponse({"picture": (await in_thread(studio.library.add_picture, picture)).id}, 201)


async def newest_picture(studio: Studio, run_id: str) -> bytes:
    """The result of a stylization, or else its newest preview.

    Raises:
        NotFound: There is neither.
    """
    details = await studio.client.run(run_id, RunKind.STYLIZE).details()
    if details.result is not None and details.result.png is not None:
        return details.result.png
    feed = studio.feeds.existing(RunKind.STYLIZE, run_id)
    if feed is None or "preview" not in feed.blobs:
        raise NotFound("this run has no picture yet")
    return feed.blobs["preview"]


def read_order(studio: Studio, asked: dict[str, Any]) -> tuple[Path, list[Style[PictureInput]], StylizeOptions]:
    """The content, the styles with their weights, and the settings of an order.

    Raises:
        InvalidInput, NotFound: Something is missing.
    """
    content = studio.library.path(text_of(asked, "content"), "content")
    styles = list_of(asked, "styles")
    if not 1 <= len(styles) <= MOST_STYLES:
        raise InvalidInput(f"give 1 to {MOST_STYLES} styles", field="styles")
    return content, [_style(studio, one) for one in styles], cast(StylizeOptions, object_of(asked, "settings"))


def _style(studio: Studio, one: Any) -> Style[PictureInput]:
    if not isinstance(one, dict) or not isinstance(one.get("weight", 1), int | float):
        raise InvalidInput("a style is a picture and a weight", field="styles")
    masks = {
        name: studio.library.path(text_of(one, name), f"styles.{name}")
        for name in ("content_region", "style_region")
        if one.get(name)
    }
    return Style(studio.library.path(text_of(one, "picture"), "styles"), float(one.get("weight", 1.0)), **masks)


async def begin(studio: Studio, kind: RunKind, events: AsyncEvents[Any, Any], asked: dict[str, Any]) -> None:
    """Starts a run, and keeps what was ordered, so that any window can show it and order it again.

    Raises:
        GramletError: The server has rejected it.
    """
    await studio.feeds.order(kind, events)
    await in_thread(studio.library.save, f"orders/{kind.value}", events.run_id, {**asked, "ordered": time.time()})


def preview_every(settings: Any) -> int:
    """Iterations between previews: early ones are worth seeing, and a picture of each iteration is not."""
    iterations = settings.get("iterations") if isinstance(settings, dict) else None
    return max(1, (iterations if isinstance(iterations, int) else 200) // PREVIEWS)


ROUTES = [
    Route("/stylizations", order, methods=["POST"]),
    Route("/stylizations/{run}/adjust", adjust, methods=["POST"]),
    Route("/stylizations/{run}/resume", resume, methods=["POST"]),
    Route("/stylizations/{run}/fork", fork, methods=["POST"]),
]
