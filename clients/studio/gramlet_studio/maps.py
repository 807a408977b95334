"""Maps: making them of a folder, finding pictures on them, and turning their regions into a classifier."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import AsyncIterator
from typing import cast

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gramlet.embed.inputs import MapOptions
from gramlet.embed.settings import DEFAULT_RESIZE
from gramlet.embed.types import Position
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.feature.types import Extraction, Form
from gramlet.folders import Folder
from gramlet.run.types import RunKind
from gramlet.types import new_name
from gramlet_studio.archive import image_folder
from gramlet_studio.context import Studio, in_thread, json_of, list_of, object_of, studio_of, text_of
from gramlet_studio.folder_of_uploads import UploadedFolder, read_uploaded
from gramlet_studio.groups import named, training_folder
from gramlet_studio.pictures import file_bytes
from gramlet_studio.stylizations import begin

_ORDERS = "orders/embed"
OF_HEADS = Extraction(("avgpool",), (Form.POOLED,), resize=DEFAULT_RESIZE)
"""What a head asks the network for."""
_log = logging.getLogger(__name__)
_PROBABILITIES = 2  # the best class, and the one that it may be mistaken for


async def order(request: Request) -> Response:
    """Makes a map: `{folder, settings}`."""
    studio, asked = studio_of(request), await json_of(request)
    uploaded = await in_thread(read_uploaded, studio.library, text_of(asked, "folder"))
    settings = cast(MapOptions, object_of(asked, "settings"))
    run_id = new_name()
    events = studio.client.embed(uploaded.folder, map_id=run_id, detached=True, report_every=5, **settings)
    await begin(studio, RunKind.EMBED, events, {**asked, "title": uploaded.name})
    studio.feeds.in_background(_know_features(studio, run_id, uploaded.folder))
    return JSONResponse({"run": run_id}, 201)


async def _know_features(studio: Studio, run_id: str, folder: Folder) -> None:
    """Lets the network see the pictures as heads do, while the layout is computed, which does not use the network.

    The server then knows their features when the user has named regions, and a classifier takes seconds.
    """
    feed = await studio.feeds.follow(RunKind.EMBED, run_id)
    await feed.wait_for("working", "layout")
    try:
        async for _ in studio.client.extract(folder, OF_HEADS):
            pass
    except GramletError as error:
        _log.info("the features of map %s are not known beforehand: %s", run_id, error)


async def find(request: Request) -> Response:
    """The nearest pictures on the map to one picture of a form, `file`."""
    studio, run_id = studio_of(request), request.path_params["run"]
    async with request.form(max_files=1, max_fields=0) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidInput("send a form with a file", field="file")
        data = await file_bytes(file, studio.options.picture_bytes)
    async for outcome in studio.client.transform(run_id, data):
        if isinstance(outcome, Position):
            near = [{"index": each.index, "distance": each.distance} for each in outcome.neighbors]
            return JSONResponse({"coordinates": outcome.coordinates.tolist(), "neighbors": near})
        raise outcome
    raise NotFound("the map has no answer")


async def train(request: Request) -> Response:
    """Trains a head from the regions that were named: `{head, groups: {name: [index, ...]}}`."""
    studio, asked = studio_of(request), await json_of(request)
    uploaded = await _folder(studio, request.path_params["run"])
    folder = training_folder(uploaded, object_of(asked, "groups"))
    run_id = new_name()
    events = studio.client.train(folder, name=text_of(asked, "head"), run_id=run_id, detached=True, kind="linear")
    await begin(studio, RunKind.TRAIN, events, {"map": request.path_params["run"], "name": asked["head"]})
    return JSONResponse({"run": run_id}, 201)


async def predict(request: Request) -> Response:
    """A head's opinion of every picture of the map, a line of JSON for each: `{index, classes: [[name, share]]}`."""
    studio, asked = studio_of(request), await json_of(request)
    uploaded = await _folder(studio, request.path_params["run"])
    head = text_of(asked, "head")
    await studio.client.head(head)  # so that an error is the reply, and not the end of a stream
    return StreamingResponse(_predictions(studio, uploaded.folder, head), media_type="application/x-ndjson")


async def _predictions(studio: Studio, folder: Folder, head: str) -> AsyncIterator[str]:
    try:
        index = 0
        async for outcome in studio.client.predict(head, folder, top_k=_PROBABILITIES):
            if isinstance(outcome, GramletError):
                yield json.dumps({"index": index, "error": outcome.message}) + "\n"
            else:
                classes = [[each.label, round(each.probability, 4)] for each in outcome.classes]
                yield json.dumps({"index": index, "classes": classes}) + "\n"
            index += 1
    except GramletError as error:
        yield json.dumps({"failed": error.message}) + "\n"


async def save_names(request: Request) -> Response:
    """Keeps the names of pictures: `{names: [name or null, ...]}`, in the order of the folder."""
    studio, run_id = studio_of(request), request.path_params["run"]
    names = list_of(await json_of(request), "names")
    if not all(name is None or isinstance(name, str) for name in names):
        raise InvalidInput("must be names", field="names")
    known = await in_thread(studio.library.load, _ORDERS, run_id) or {}
    await in_thread(studio.library.save, _ORDERS, run_id, {**known, "names": names})
    return Response(status_code=204)


async def names_csv(request: Request) -> Response:
    """The names as a CSV file: picture, name, class of the folder."""
    studio, run_id = studio_of(request), request.path_params["run"]
    uploaded, names = await _named(studio, run_id)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("picture", "name", "folder class"))
    for picture, name in zip(uploaded.folder.pictures, names, strict=True):
        writer.writerow((picture.name, name or "", picture.label))
    headers = {"content-disposition": f'attachment; filename="names-{run_id}.csv"'}
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


async def names_zip(request: Request) -> Response:
    """The named pictures as <name>/<picture> in a ZIP file, which `gramlet train` and ImageFolder read."""
    studio, run_id = studio_of(request), request.path_params["run"]
    uploaded, names = await _named(studio, run_id)
    if not any(names):
        raise InvalidInput("no picture has a name yet", field="names")
    archive = await in_thread(image_folder, uploaded, names)
    headers = {"content-disposition": f'attachment; filename="names-{run_id}.zip"'}
    return StreamingResponse(archive, media_type="application/zip", headers=headers)


async def _folder(studio: Studio, run_id: str) -> UploadedFolder:
    known = await in_thread(studio.library.load, _ORDERS, run_id)
    if known is None or not isinstance(known.get("folder"), str):
        raise NotFound("this map was not made here, so its pictures are not at hand", field="run")
    return await in_thread(read_uploaded, studio.library, known["folder"])


async def _named(studio: Studio, run_id: str) -> tuple[UploadedFolder, list[str | None]]:
    uploaded = await _folder(studio, run_id)
    known = await in_thread(studio.library.load, _ORDERS, run_id) or {}
    return uploaded, named(known.get("names", []), len(uploaded.pictures))


ROUTES = [
    Route("/maps", order, methods=["POST"]),
    Route("/maps/{run}/find", find, methods=["POST"]),
    Route("/maps/{run}/train", train, methods=["POST"]),
    Route("/maps/{run}/predictions", predict, methods=["POST"]),
    Route("/maps/{run}/names", save_names, methods=["POST"]),
    Route("/maps/{run}/names.csv", names_csv),
    Route("/maps/{run}/names.zip", names_zip),
]
