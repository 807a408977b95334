"""Who may speak to the page: a middleware that checks every request before anything else does.

- *DNS rebinding*: a request names a host that is ours, or is rejected.
- *CSRF*: a request that changes something comes from our own page, as its Origin and Sec-Fetch-Site say.
- *Other sites*: none may frame the page or read or embed its pictures.
- *Scripts*: only our own files. Trusted Types forbid turning text into markup at all.
- *Size*: a body of more bytes than any upload may have is cut off, whatever its Content-Length says.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
BODY_BYTES = 96_000_000
"""No request is larger: the page sends a folder in several."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_READS = ("GET", "HEAD")
_TOO_LARGE = f"a request may have {BODY_BYTES // 1_000_000} MB: send the files in several"


class Guard:
    """Rejects what does not come from the page, and adds the headers that confine it.

    Args:
        app: What answers the requests that pass.
        names: Further host names that are ours, without ports.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {name.lower() for name in (*LOOPBACK_NAMES, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if wrong := self._wrong(scope["method"], scope["path"], headers):
            await JSONResponse({"error": wrong}, 403)(scope, receive, send_confined)
        elif headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > BODY_BYTES:
            await JSONResponse({"error": _TOO_LARGE}, 413)(scope, receive, send_confined)
        else:
            await self._app(scope, _limited(receive), send_confined)

    def _wrong(self, method: str, path: str, headers: Headers) -> str:
        host = headers.get("host", "").lower()
        if _without_port(host) not in self._names:
            return f"this page is not served as {host[:200]!r}: start the studio with --allow-host for this name"
        site = headers.get("sec-fetch-site", "same-origin")
        if method not in _READS:
            origin = headers.get("origin")
            if origin is None or origin.lower().partition("://")[2] != host or site != "same-origin":
                return "only the studio's own page may change anything"
        elif path.startswith("/api/") and site not in ("same-origin", "none"):
            return "only the studio's own page may read this"
        return ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _limited(receive: Receive) -> Receive:
    """Receives at most BODY_BYTES of a body."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return limited
