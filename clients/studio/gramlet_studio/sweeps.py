"""Sweeps: ordering a grid, and going on from one of its cells."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gramlet.errors import InvalidInput, NotFound
from gramlet.run.types import RunKind
from gramlet.types import new_name
from gramlet_studio.context import in_thread, json_of, list_of, studio_of
from gramlet_studio.stylizations import begin, read_order, start


async def order(request: Request) -> Response:
    """Orders a sweep: as a stylization, with `ratios` and `deepestStages`."""
    studio, asked = studio_of(request), await json_of(request)
    content, styles, settings = await in_thread(read_order, studio, asked)
    run_id = new_name()
    events = studio.client.sweep(
        content,
        styles,
        ratios=list_of(asked, "ratios"),
        deepest_stages=list_of(asked, "deepestStages"),
        run_id=run_id,
        detached=True,
        **settings,
    )
    await begin(studio, RunKind.SWEEP, events, asked)
    return JSONResponse({"run": run_id}, 201)


async def go_on(request: Request) -> Response:
    """Stylizes at full size from a cell: `{row, column, deepestStage, ratio, settings: {size, iterations}}`."""
    studio, sweep, asked = studio_of(request), request.path_params["run"], await json_of(request)
    known = await in_thread(studio.library.load, "orders/sweep", sweep)
    feed = await studio.feeds.follow(RunKind.SWEEP, sweep)
    cell = feed.blobs.get(f"cell-{asked.get('row')}-{asked.get('column')}")
    if known is None or cell is None:
        raise NotFound("the studio does not have this cell any more: run the sweep again", field="cell")
    picture = await in_thread(studio.library.add_picture, cell)
    weights = _weights(feed.settings, asked)
    settings = {**known.get("settings", {}), **asked.get("settings", {}), **weights}
    asked = {**known, "settings": settings, "initial": picture.id, "from": sweep}
    return JSONResponse({"run": await start(studio, asked)}, 201)


def _weights(settings: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The weights of a cell: as the server computes them for its row and column.

    Raises:
        InvalidInput: The cell has no such stage or ratio.
    """
    stages = dict(settings.get("style_stages") or {})
    deepest, ratio = asked.get("deepestStage"), asked.get("ratio")
    if deepest not in stages or not isinstance(ratio, int | float):
        raise InvalidInput("name a stage and a ratio of the sweep", field="cell")
    names = list(stages)
    kept = {name: stages[name] for name in names[: names.index(deepest) + 1]}
    scale = sum(stages.values()) / sum(kept.values())
    style_weight = settings.get("style_weight") or 1.0
    return {
        "style_stages": {name: weight * scale for name, weight in kept.items()},
        "content_weight": ratio * style_weight,
        "style_weight": style_weight,
    }


ROUTES = [
    Route("/sweeps", order, methods=["POST"]),
    Route("/sweeps/{run}/go-on", go_on, methods=["POST"]),
]
