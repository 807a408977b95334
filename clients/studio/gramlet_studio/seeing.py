"""See: what a channel of the network responds to in the user's pictures, and the picture that forms for it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gramlet import AsyncEvents
from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.see_types import (
    Patch,
    SeeEvent,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeReconnecting,
    SeeRefused,
    SeeResult,
    SeeStarted,
)
from gramlet_studio.context import Studio, in_thread, json_of, studio_of, text_of
from gramlet_studio.failures import error_fields
from gramlet_studio.folder_of_uploads import read_uploaded
from gramlet_studio.pictures import kept_samples

_PREVIEW_EVERY = 8  # steps


class _Seen(NamedTuple):
    """A picture to look at: its name for people, its id in the library."""

    name: str
    picture: str


async def look(request: Request) -> Response:
    """Looks at a channel: `{stage, channel, folder, optimize}`; a line of JSON for each event. No folder: the samples.

    Closing the connection ends the work.
    """
    studio, asked = studio_of(request), await json_of(request)
    channel, optimize = asked.get("channel"), asked.get("optimize", True)
    if not isinstance(channel, int) or not isinstance(optimize, bool):
        raise InvalidInput("must be the number of a channel", field="channel")
    seen = await _seen(studio, text_of(asked, "folder", ""))
    paths = [studio.library.path(each.picture) for each in seen]
    events = studio.client.see(text_of(asked, "stage"), channel, paths, optimize=optimize, preview_every=_PREVIEW_EVERY)
    first = await anext(events)  # so that an error is the reply, and not the end of a stream
    return StreamingResponse(_lines(first, events, seen), media_type="application/x-ndjson")


async def _seen(studio: Studio, folder: str) -> list[_Seen]:
    if not folder:
        return [_Seen(str(each["name"]), str(each["id"])) for each in await kept_samples(studio)]
    uploaded = await in_thread(read_uploaded, studio.library, folder)
    return [_Seen(one.name, id) for one, id in zip(uploaded.folder.pictures, uploaded.pictures, strict=True)]


async def _lines(first: SeeEvent, events: AsyncEvents[SeeEvent, SeeResult], seen: list[_Seen]) -> AsyncIterator[str]:
    async with events:
        try:
            yield _line(first, seen)
            async for event in events:
                yield _line(event, seen)
        except GramletError as error:
            yield json.dumps({"event": "failed", **error_fields(error)}) + "\n"


def _line(event: SeeEvent, seen: list[_Seen]) -> str:
    name, values = _described(event, seen)
    return json.dumps({"event": name, **values}) + "\n"


def _described(event: SeeEvent, seen: list[_Seen]) -> tuple[str, dict[str, Any]]:
    match event:
        case SeeQueued():
            return "queued", {"position": event.position}
        case SeeStarted():
            return "started", {"channels": event.channels, "receptiveField": event.receptive_field}
        case SeeProgress():
            return "progress", {"done": event.pictures, "total": len(seen)}
        case SeeRefused():
            return "refused", {"name": seen[event.index].name, "error": event.error.message}
        case SeePatches():
            return "patches", {"patches": [_patch(patch, seen[patch.index]) for patch in event.patches]}
        case SeePreview():
            return "preview", {"step": event.step, "steps": event.steps, "jpeg": _text(event.jpeg)}
        case SeeOptimized():
            return "optimized", {"activation": event.activation, "png": _text(event.png)}
        case SeeReconnecting():
            return "lost", {}
        case SeeResult():
            return "result", {"pictures": event.pictures, "refused": len(event.refused)}


def _patch(patch: Patch, seen: _Seen) -> dict[str, Any]:
    return {
        "name": seen.name,
        "picture": seen.picture,
        "activation": patch.activation,
        "box": asdict(patch.box),
        "width": patch.width,
        "height": patch.height,
        "jpeg": _text(patch.jpeg),
        "projection": _text(patch.projection),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


ROUTES = [Route("/see", look, methods=["POST"])]
