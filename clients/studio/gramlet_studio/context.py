"""What every handler of a request works with, and how it reads a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

from starlette.requests import Request

from gramlet import AsyncClient
from gramlet.errors import InvalidInput
from gramlet.run.types import RunKind
from gramlet_studio.feeds import Feeds
from gramlet_studio.folder_of_uploads import OpenFolder
from gramlet_studio.library import Library
from gramlet_studio.options import StudioOptions

P = ParamSpec("P")
R = TypeVar("R")

_JSON_BYTES = 2_000_000


@dataclass(frozen=True)
class Studio:
    """The parts of the studio. `uploading`: the folders whose files are on their way, by id."""

    options: StudioOptions
    client: AsyncClient
    library: Library
    feeds: Feeds
    uploading: dict[str, OpenFolder] = field(default_factory=dict)


def studio_of(request: Request) -> Studio:
    """The studio that answers the request."""
    return cast(Studio, request.app.state.studio)


async def in_thread(work: Callable[P, R], /, *arguments: P.args, **keywords: P.kwargs) -> R:
    """Runs what blocks, such as reading a file, beside the event loop."""
    return await asyncio.to_thread(work, *arguments, **keywords)


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        InvalidInput: There is none.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _JSON_BYTES:
            raise InvalidInput("the request is too large")
    try:
        value = json.loads(body)
    except ValueError:
        raise InvalidInput("the request is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidInput("the request is not a JSON object")
    return value


def text_of(values: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text of a JSON object.

    Raises:
        InvalidInput: It is not there, or is not text.
    """
    value = values.get(name, default)
    if not isinstance(value, str):
        raise InvalidInput("must be text", field=name)
    return value


def list_of(values: dict[str, Any], name: str) -> list[Any]:
    """A list of a JSON object; empty where it is not there.

    Raises:
        InvalidInput: It is not a list.
    """
    value = values.get(name, [])
    if not isinstance(value, list):
        raise InvalidInput("must be a list", field=name)
    return value


def object_of(values: dict[str, Any], name: str) -> dict[str, Any]:
    """An object in a JSON object; empty where it is not there.

    Raises:
        InvalidInput: It is not an object.
    """
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise InvalidInput("must be an object", field=name)
    return value


def run_of(request: Request) -> tuple[RunKind, str]:
    """The kind and the id of the run in the path.

    Raises:
        InvalidInput: There is no such kind.
    """
    try:
        kind = RunKind(request.path_params["kind"])
    except ValueError:
        raise InvalidInput("there is no such kind of run", field="kind") from None
    return kind, str(request.path_params["run"])
