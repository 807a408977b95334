"""Turns the errors of gramlet into replies of HTTP: `{"error": ..., "field": ..., "code": ...}`."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gramlet.errors import Code, GramletError, InternalError

STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 502,  # the studio's own token is wrong: the browser can do nothing about it
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.ABORTED: 409,
    Code.CANCELLED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.UNIMPLEMENTED: 501,
    Code.DEADLINE_EXCEEDED: 504,
}


def error_fields(error: GramletError) -> dict[str, Any]:
    """The error for the page."""
    return {"error": error.message, "field": error.field, "code": error.code.name.lower()}


async def gramlet_failed(request: Request, error: Exception) -> Response:
    """The reply for an error of gramlet."""
    known = error if isinstance(error, GramletError) else InternalError(str(error))
    headers = {"retry-after": f"{known.retry_after:.0f}"} if known.retry_after else {}
    return JSONResponse(error_fields(known), STATUS.get(known.code, 500), headers)


async def http_failed(request: Request, error: Exception) -> Response:
    """The reply for a page that does not exist, or a request that cannot be read."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "failed"
    return JSONResponse({"error": detail, "field": "", "code": "http"}, status)
