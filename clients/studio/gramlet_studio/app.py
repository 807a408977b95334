"""The application: its routes, and what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gramlet import AsyncClient
from gramlet.errors import GramletError
from gramlet_studio import folders, heads, maps, pictures, runs, seeing, stylizations, sweeps
from gramlet_studio.context import Studio
from gramlet_studio.failures import gramlet_failed, http_failed
from gramlet_studio.feeds import Feeds
from gramlet_studio.library import Library
from gramlet_studio.options import StudioOptions
from gramlet_studio.security import Guard

STATIC = Path(__file__).with_name("static")
TABS = ("stylize", "runs", "map", "heads", "sweep", "see")


def make_app(options: StudioOptions, make_client: Callable[[], AsyncClient]) -> Starlette:
    """The application.

    Args:
        options: How to serve.
        make_client: Makes the client of the gramlet server, in the event loop that uses it.

    Raises:
        InvalidInput: The folder of the options cannot be used.
    """

    library = Library(options.data)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with make_client() as client:
            library.clean()
            app.state.studio = Studio(options, client, library, Feeds(client, library))
            yield
            await app.state.studio.feeds.close()

    # The routes of single kinds come first: those of all runs match any kind.
    parts = (pictures, folders, stylizations, sweeps, maps, heads, seeing, runs)
    api = [route for part in parts for route in part.ROUTES]
    pages = [Route(path, _page) for tab in TABS for path in (f"/{tab}", f"/{tab}/{{run}}")]
    return Starlette(
        routes=[Route("/", _page), *pages, Mount("/api", routes=api), Mount("/static", _Files())],
        middleware=[Middleware(Guard, names=(options.host, *options.allowed_hosts))],
        exception_handlers={GramletError: gramlet_failed, HTTPException: http_failed},
        lifespan=lifespan,
    )


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


class _Files(StaticFiles):
    """The page's files. Browsers ask whether they have changed, so that an upgrade shows at once."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response
