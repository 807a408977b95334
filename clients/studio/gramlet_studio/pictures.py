"""Pictures: uploading them, seeing them small, and the samples at hand."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gramlet.errors import GramletError, InvalidInput
from gramlet_studio.context import Studio, in_thread, studio_of
from gramlet_studio.failures import error_fields

SAMPLES = Path(__file__).with_name("samples")
SIDES = (64, 160, 320, 640, 1280)
"""The sizes in which the page may ask for a picture: few, because each is kept."""
_MOST_AT_ONCE = 8


async def upload(request: Request) -> Response:
    """Keeps the files of a form, each `file`. A bad one fails alone."""
    studio = studio_of(request)
    async with request.form(max_files=_MOST_AT_ONCE, max_fields=0) as form:
        files = [file for file in form.getlist("file") if isinstance(file, UploadFile)]
        if not files:
            raise InvalidInput("send a form with files", field="file")
        kept = [await _keep(studio, file) for file in files]
    return JSONResponse({"pictures": kept}, 201)


async def _keep(studio: Studio, file: UploadFile) -> dict[str, object]:
    try:
        data = await file_bytes(file, studio.options.picture_bytes)
        return {**asdict(await in_thread(studio.library.add_picture, data)), "name": file.filename or ""}
    except GramletError as error:
        return {"name": file.filename or "", **error_fields(error)}


async def file_bytes(file: UploadFile, most: int) -> bytes:
    """The bytes of an uploaded file.

    Raises:
        InvalidInput: It is empty or too large.
    """
    data = await file.read(most + 1)
    if not data:
        raise InvalidInput("the file is empty", field="file")
    if len(data) > most:
        raise InvalidInput(f"the file is larger than {most // 1_000_000} MB", field="file")
    return data


async def show(request: Request) -> Response:
    """A picture as a JPEG of at most `side` pixels."""
    return await _jpeg(studio_of(request), request.path_params["picture"], request.query_params.get("side", "640"))


async def _jpeg(studio: Studio, identifier: str, side: str) -> Response:
    if side not in map(str, SIDES):
        raise InvalidInput(f"must be one of {', '.join(map(str, SIDES))}", field="side")
    jpeg = await in_thread(studio.library.thumbnail, identifier, int(side))
    # The id is the hash of the picture: it never changes.
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400, immutable"})


async def samples(request: Request) -> Response:
    """The samples: contents and styles, ready to be used as if they had been uploaded."""
    return JSONResponse({"samples": await kept_samples(studio_of(request))})


async def kept_samples(studio: Studio) -> list[dict[str, object]]:
    """The samples as pictures of the library: `id`, `width`, `height`, `use` and `name`."""

    def kept(path: Path) -> dict[str, object]:
        use, _, name = path.stem.partition("-")
        return {**asdict(studio.library.add_picture(path.read_bytes())), "use": use, "name": name.replace("-", " ")}

    return await asyncio.gather(*[in_thread(kept, path) for path in sorted(SAMPLES.glob("*.jpg"))])


async def describe(request: Request) -> Response:
    """The size of a picture."""
    picture = await in_thread(studio_of(request).library.describe, request.path_params["picture"])
    return JSONResponse(asdict(picture))


ROUTES = [
    Route("/pictures", upload, methods=["POST"]),
    Route("/pictures/{picture}", describe),
    Route("/pictures/{picture}/jpeg", show),
    Route("/samples", samples),
]
