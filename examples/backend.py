"""A web backend that keeps nothing itself, so it may die and come back: STYLE=starry.jpg uvicorn backend:app.

curl --data-binary @tubingen.jpg localhost:8000/pictures"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import gramlet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SIZE, ITERATIONS = int(os.environ.get("SIZE", "384")), int(os.environ.get("ITERATIONS", "100"))
STYLE = Path(os.environ["STYLE"]).read_bytes()
STATUSES: dict[type[Exception], int] = {gramlet.InvalidInput: 400, gramlet.NotFound: 404, gramlet.Overloaded: 503}
gramlet.validate(STYLE, "STYLE")  # now, and not with the first order
client = gramlet.AsyncClient(os.environ.get("GRAMLET_SERVER", "localhost:50051"))


async def order(request: Request) -> Response:
    events = client.stylize(await request.body(), STYLE, size=SIZE, iterations=ITERATIONS, detached=True)
    async with events:
        await anext(events)  # the run is in the store now, and needs nobody any more
    return JSONResponse({"id": events.run_id}, 201)


async def listed(request: Request) -> Response:
    runs = [run async for run in client.runs(kind="stylize")]
    return JSONResponse([{"id": run.run_id, "state": run.state.value, "done": run.progress.done} for run in runs])


async def watch(request: Request) -> Response:
    events = client.run(request.path_params["id"], "stylize").watch()
    first = await anext(events)  # raises where there is no such run, while the reply can still say so

    async def lines() -> AsyncIterator[str]:
        yield line(first)
        try:
            async for event in events:
                yield line(event)
        except gramlet.GramletError as error:  # the run failed, or was erased
            yield f"event: failed\ndata: {error}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def line(event: object) -> str:
    return f"data: {type(event).__name__} {getattr(event, 'iteration', '')}\n\n"


async def picture(request: Request) -> Response:
    details = await client.run(request.path_params["id"], "stylize").details()
    if details.result is None:
        return JSONResponse({"state": details.run.state.value}, 409)
    return Response(details.result.png, media_type="image/png")


async def erase(request: Request) -> Response:
    await client.run(request.path_params["id"], "stylize").delete()
    return Response(status_code=204)


async def failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, STATUSES.get(type(error), 502))


app = Starlette(
    routes=[
        Route("/pictures", order, methods=["POST"]),
        Route("/pictures", listed),
        Route("/pictures/{id}", picture),
        Route("/pictures/{id}", erase, methods=["DELETE"]),
        Route("/pictures/{id}/events", watch),
    ],
    exception_handlers={gramlet.GramletError: failed},
)
