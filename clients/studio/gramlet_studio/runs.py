"""Runs of every kind: the gallery, their events, their pictures; stopping and deleting them; the server's state."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gramlet.errors import NotFound
from gramlet.json_codec import plain
from gramlet.run.types import RunInfo, RunKind
from gramlet_studio.context import Studio, in_thread, run_of, studio_of
from gramlet_studio.folder_of_uploads import collage
from gramlet_studio.library import smaller
from gramlet_studio.png import with_text

_MOST_LISTED = 200
_THUMBNAIL = 320
_STATUS_SECONDS = 10.0  # a server that is gone is known at once; a busy one is not gone


async def status(request: Request) -> Response:
    """The server's health, network and presets; 503 if it does not answer."""
    found = await studio_of(request).client.status(timeout=_STATUS_SECONDS)
    health = {service.rpartition(".")[2]: state.value for service, state in found.health.items()}
    values: dict[str, Any] = {"address": found.address, "health": health}
    if found.model is not None:
        values["model"] = {"backbone": found.model.backbone, "device": found.model.device}
        values["stages"] = [{"name": stage.name, "channels": stage.channels} for stage in found.model.stages]
    if found.stylize is not None:
        values["stylize"] = plain(found.stylize)
    return JSONResponse(values)


async def listed(request: Request) -> Response:
    """The newest runs."""
    studio = studio_of(request)
    found: list[dict[str, Any]] = []
    async for info in studio.client.runs(kind=request.query_params.get("kind") or None):
        found.append(_run(info))
        if len(found) >= _MOST_LISTED:
            break
    return JSONResponse({"runs": found})


async def show(request: Request) -> Response:
    """A run, and what the page ordered, if it was this studio's page."""
    kind, run_id = run_of(request)
    studio = studio_of(request)
    info = await studio.client.run(run_id, kind).info()
    order = await in_thread(studio.library.load, f"orders/{kind.value}", run_id)
    return JSONResponse({**_run(info), "order": order})


async def events(request: Request) -> Response:
    """The events of a run as Server-Sent Events. 204 if the browser has seen all of them: it then asks no more."""
    kind, run_id = run_of(request)
    feed = await studio_of(request).feeds.follow(kind, run_id)
    position = feed.position_after(request.headers.get("last-event-id", ""))
    if not feed.has_more(position):
        return Response(status_code=204)
    # Some proxies hold a stream back until it ends, unless they are told.
    return StreamingResponse(feed.follow(position), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def blob(request: Request) -> Response:
    """A picture that came with an event: `preview`, `cell-0-1`, `curves`."""
    kind, run_id = run_of(request)
    feed = await studio_of(request).feeds.follow(kind, run_id)
    data = feed.blobs.get(request.path_params["name"])
    if not data:
        raise NotFound("this run has no such picture now")
    return Response(data, media_type="image/png" if data.startswith(b"\x89PNG") else "image/jpeg")


async def result(request: Request) -> Response:
    """The resulting picture, as a PNG that has the settings in its metadata."""
    kind, run_id = run_of(request)
    studio = studio_of(request)
    details = await studio.client.run(run_id, kind).details()
    if details.result is None or details.result.png is None:
        raise NotFound("this run has no result yet")
    order = await in_thread(studio.library.load, f"orders/{kind.value}", run_id) or {}
    feed = await studio.feeds.follow(kind, run_id)
    settings = feed.settings
    about = {"run": run_id, "settings": settings or order.get("settings") or details.run.settings}
    texts = {"Software": "gramlet studio", "gramlet": json.dumps(about, ensure_ascii=False)}
    headers = {"content-disposition": f'attachment; filename="{kind.value}-{run_id}.png"'}
    return Response(
        with_text(details.result.png, texts),
        media_type="image/png",
        headers=headers if "download" in request.query_params else {},
    )


async def thumbnail(request: Request) -> Response:
    """A small picture of a run: its result, its newest preview, or its content."""
    kind, run_id = run_of(request)
    studio = studio_of(request)
    kept = await in_thread(studio.library.run_thumbnail, kind.value, run_id)
    if kept is None:
        kept = await _make_thumbnail(studio, kind, run_id)
    return Response(kept, media_type="image/jpeg")


async def _make_thumbnail(studio: Studio, kind: RunKind, run_id: str) -> bytes:
    details = await studio.client.run(run_id, kind).details()
    if details.result is not None and details.result.png is not None:
        jpeg = await in_thread(smaller, details.result.png, _THUMBNAIL)
        await in_thread(studio.library.save_run_thumbnail, kind.value, run_id, jpeg)
        return jpeg
    feed = studio.feeds.existing(kind, run_id)
    if feed is not None and "preview" in feed.blobs:
        return feed.blobs["preview"]
    order = await in_thread(studio.library.load, f"orders/{kind.value}", run_id) or {}
    if isinstance(order.get("content"), str):
        return await in_thread(studio.library.thumbnail, order["content"], _THUMBNAIL)
    of_map = await in_thread(studio.library.load, "orders/embed", order["map"]) if "map" in order else None
    folder = (of_map or order).get("folder")
    if not isinstance(folder, str):
        raise NotFound("this run has no picture")
    jpeg = await in_thread(collage, studio.library, folder)
    await in_thread(studio.library.save_run_thumbnail, kind.value, run_id, jpeg)
    return jpeg


async def stop(request: Request) -> Response:
    """Stops a run; returns when it has stopped."""
    kind, run_id = run_of(request)
    return JSONResponse(_run(await studio_of(request).client.run(run_id, kind).stop()))


async def delete(request: Request) -> Response:
    """Deletes a run with everything that the server and the studio keep of it."""
    kind, run_id = run_of(request)
    studio = studio_of(request)
    await studio.client.run(run_id, kind).delete()
    studio.feeds.drop(kind, run_id)
    for group in (f"orders/{kind.value}", f"orders/{kind.value}-events"):
        await in_thread(studio.library.forget, group, run_id)
    return Response(status_code=204)


def _run(info: RunInfo) -> dict[str, Any]:
    values: dict[str, Any] = plain(info, keep_none=False)
    return {**values, "hasEnded": info.state.has_ended}


ROUTES = [
    Route("/status", status),
    Route("/runs", listed),
    Route("/runs/{kind}/{run}", show),
    Route("/runs/{kind}/{run}", delete, methods=["DELETE"]),
    Route("/runs/{kind}/{run}/events", events),
    Route("/runs/{kind}/{run}/stop", stop, methods=["POST"]),
    Route("/runs/{kind}/{run}/result.png", result),
    Route("/runs/{kind}/{run}/thumbnail.jpg", thumbnail),
    Route("/runs/{kind}/{run}/pictures/{name}", blob),
]
