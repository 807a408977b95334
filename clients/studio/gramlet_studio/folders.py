"""Folders of pictures: the page sends one file by file, and is told what was understood of it."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gramlet.errors import InvalidInput, NotFound, as_utf8
from gramlet.types import new_name
from gramlet_studio.context import Studio, in_thread, json_of, studio_of, text_of
from gramlet_studio.folder_of_uploads import SHEET, TILE, TILES, OpenFolder, read_uploaded, sheet

_MOST_OPEN = 8
_MOST_AT_ONCE = 64
_MOST_LISTED = 40
_NAME_CHARACTERS = 1024


async def begin(request: Request) -> Response:
    """Begins a folder: `{name}`."""
    studio, asked = studio_of(request), await json_of(request)
    while len(studio.uploading) >= _MOST_OPEN:
        studio.uploading.pop(next(iter(studio.uploading)))  # the oldest: its page is gone
    identifier = new_name()
    studio.uploading[identifier] = OpenFolder(as_utf8(text_of(asked, "name"))[:_NAME_CHARACTERS] or "folder")
    return JSONResponse({"folder": identifier}, 201)


async def add(request: Request) -> Response:
    """Adds files: a form of `names`, a JSON list of their paths, and as many `file`."""
    studio = studio_of(request)
    folder = _open(studio, request.path_params["folder"])
    async with request.form(max_files=_MOST_AT_ONCE, max_fields=1) as form:
        files = [file for file in form.getlist("file") if isinstance(file, UploadFile)]
        for name, file in zip(_names(form.get("names"), len(files)), files, strict=True):
            data = await file.read(studio.options.picture_bytes + 1)
            if len(data) > studio.options.picture_bytes:
                raise InvalidInput(f"{name}: larger than {studio.options.picture_bytes // 1_000_000} MB", field="file")
            identifier = await in_thread(studio.library.add_file, data)
            folder.add(name, identifier, len(data), studio.options.folder_files, studio.options.folder_bytes)
    return JSONResponse({"files": len(folder.files)})


def _names(given: Any, count: int) -> list[str]:
    try:
        names = json.loads(given)
    except (TypeError, ValueError):
        raise InvalidInput("must be a JSON list of paths", field="names") from None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise InvalidInput("must be a path for each file", field="names")
    return [_clean(name) for name in names]


def _clean(name: str) -> str:
    """A path as data: without empty parts, in text that UTF-8 can hold. It never names a file here."""
    return as_utf8(re.sub(r"/+", "/", name).strip("/"))[:_NAME_CHARACTERS] or "file"


async def end(request: Request) -> Response:
    """All files are there. Returns what was understood."""
    studio, identifier = studio_of(request), request.path_params["folder"]
    folder = _open(studio, identifier)
    document = {"name": folder.name, "files": folder.files}
    await in_thread(studio.library.save, "folders", identifier, document)
    del studio.uploading[identifier]
    return JSONResponse((await in_thread(read_uploaded, studio.library, identifier)).summary())


async def listed(request: Request) -> Response:
    """The folders that have arrived, newest first: `{folders: [{id, name, files}]}`."""
    library = studio_of(request).library
    found = []
    for identifier in (await in_thread(library.names, "folders"))[:_MOST_LISTED]:
        document = await in_thread(library.load, "folders", identifier)
        if document is not None:
            found.append({"id": identifier, "name": document["name"], "files": len(document["files"])})
    return JSONResponse({"folders": found})


async def show(request: Request) -> Response:
    """What was understood of a folder, and its pictures."""
    studio = studio_of(request)
    folder = await in_thread(read_uploaded, studio.library, request.path_params["folder"])
    sheets = {"tile": TILE, "columns": TILES, "perSheet": SHEET, "count": -(-len(folder.pictures) // SHEET)}
    return JSONResponse({**folder.summary(), "items": folder.items(), "sheets": sheets})


async def show_sheet(request: Request) -> Response:
    """A sheet of small pictures."""
    studio = studio_of(request)
    folder = await in_thread(read_uploaded, studio.library, request.path_params["folder"])
    jpeg = await in_thread(sheet, studio.library, folder, request.path_params["number"])
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400, immutable"})


def _open(studio: Studio, identifier: str) -> OpenFolder:
    folder = studio.uploading.get(identifier)
    if folder is None:
        raise NotFound("this upload was given up: drop the folder again", field="folder")
    return folder


ROUTES = [
    Route("/folders", begin, methods=["POST"]),
    Route("/folders", listed),
    Route("/folders/{folder}", show),
    Route("/folders/{folder}/files", add, methods=["POST"]),
    Route("/folders/{folder}/end", end, methods=["POST"]),
    Route("/folders/{folder}/sheets/{number:int}.jpg", show_sheet),
]
