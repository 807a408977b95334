"""Heads: training them from a folder, what is behind their reports, and trying them on a photo."""

from __future__ import annotations

from typing import Any, cast

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gramlet.errors import GramletError, InvalidInput
from gramlet.folders.rules import VALIDATION
from gramlet.json_codec import plain
from gramlet.run.types import RunKind
from gramlet.train.inputs import TrainOptions
from gramlet.types import new_name
from gramlet_studio.context import Studio, in_thread, json_of, object_of, studio_of, text_of
from gramlet_studio.folder_of_uploads import read_uploaded
from gramlet_studio.pictures import file_bytes
from gramlet_studio.stylizations import begin

_ORDERS = "orders/train"


async def order(request: Request) -> Response:
    """Trains a head: `{folder, name, settings, changes: {picture: class or null}}`."""
    studio, asked = studio_of(request), await json_of(request)
    uploaded = await in_thread(read_uploaded, studio.library, text_of(asked, "folder"))
    folder = uploaded.with_split(_changes(asked))
    settings = cast(TrainOptions, object_of(asked, "settings"))
    run_id = new_name()
    events = studio.client.train(folder, name=text_of(asked, "name"), run_id=run_id, detached=True, **settings)
    await begin(studio, RunKind.TRAIN, events, asked)
    return JSONResponse({"run": run_id}, 201)


async def validation(request: Request) -> Response:
    """A training's head on each picture of the validation set: the pictures behind the confusion matrix."""
    studio, run_id = studio_of(request), request.path_params["run"]
    known = await in_thread(studio.library.load, _ORDERS, run_id)
    if known is None or "folder" not in known:
        raise InvalidInput("this head was not trained here, so its pictures are not at hand", field="run")
    if "validation" not in known:
        details = await studio.client.run(run_id, RunKind.TRAIN).details()
        if details.result is None or details.result.head is None:
            raise InvalidInput("the training has not ended yet", field="run")
        known["validation"] = await _validate(studio, known, details.result.head)
        await in_thread(studio.library.save, _ORDERS, run_id, known)
    return JSONResponse({"pictures": known["validation"]})


async def _validate(studio: Studio, known: dict[str, Any], head: str) -> list[dict[str, Any]]:
    uploaded = await in_thread(read_uploaded, studio.library, known["folder"])
    ids = {picture.name: found for picture, found in zip(uploaded.folder.pictures, uploaded.pictures, strict=True)}
    split = uploaded.with_split(_changes(known)).pictures
    pictures = [picture for picture in split if picture.set == VALIDATION and picture.label]
    found: list[dict[str, Any]] = []
    outcomes = studio.client.predict(head, [picture.source for picture in pictures], top_k=1)
    place = 0
    async for outcome in outcomes:
        picture = pictures[place]
        place += 1
        if isinstance(outcome, GramletError):
            continue
        found.append(
            {
                "name": picture.name,
                "picture": ids[picture.name],
                "label": picture.label,
                "predicted": outcome.label,
                "probability": round(outcome.probability, 4),
            }
        )
    return found


def _changes(asked: dict[str, Any]) -> dict[str, str | None]:
    changes = object_of(asked, "changes")
    if not all(label is None or isinstance(label, str) for label in changes.values()):
        raise InvalidInput("must be classes, or null to leave a picture out", field="changes")
    return changes


async def listed(request: Request) -> Response:
    """All heads, newest first."""
    heads = await studio_of(request).client.heads()
    newest = sorted(heads, key=lambda head: head.created, reverse=True)
    return JSONResponse({"heads": [{**plain(head, keep_none=False), "accuracy": head.accuracy} for head in newest]})


async def show(request: Request) -> Response:
    """A head with its reports and history."""
    details = await studio_of(request).client.head(_head(request))
    return JSONResponse(plain(details.head, keep_none=False))


async def predict(request: Request) -> Response:
    """A head's opinion of a picture of a form, `file`."""
    studio = studio_of(request)
    async with request.form(max_files=1, max_fields=0) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidInput("send a form with a file", field="file")
        data = await file_bytes(file, studio.options.picture_bytes)
    prediction = await studio.client.predict(_head(request), data, top_k=5)
    return JSONResponse({"classes": [[each.label, each.probability] for each in prediction.classes]})


async def delete(request: Request) -> Response:
    """Removes a version of a head."""
    await studio_of(request).client.delete_head(_head(request))
    return Response(status_code=204)


async def export(request: Request) -> Response:
    """A head as a file of safetensors."""
    data = await studio_of(request).client.export_head(_head(request))
    name = _head(request).replace("/", "-")
    headers = {"content-disposition": f'attachment; filename="{name}.safetensors"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


def _head(request: Request) -> str:
    return f"{request.path_params['name']}/{request.path_params['version']}"


ROUTES = [
    Route("/trainings", order, methods=["POST"]),
    Route("/trainings/{run}/validation", validation),
    Route("/heads", listed),
    Route("/heads/{name}/{version:int}", show),
    Route("/heads/{name}/{version:int}", delete, methods=["DELETE"]),
    Route("/heads/{name}/{version:int}/predict", predict, methods=["POST"]),
    Route("/heads/{name}/{version:int}/file", export),
]
