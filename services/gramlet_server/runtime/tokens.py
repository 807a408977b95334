"""The tokens of a server: who may call, under which name, and what.

A line of a token file is `NAME:TOKEN[:SCOPES]`. TOKEN is `sha256-` and the hash of the token, so that a file that is
read by others lets nobody in; `gramlet-server token new NAME` prints a token and its line. A token as it is works as
well, with a warning, and so does a line that is only a token: it has no name and sees everything. `#` begins a comment.

SCOPES are separated by commas: the services that may be called (all, unless some are named), `read-only`, `all`, which
lets the caller see what others own, and `on-behalf`, which lets it call for other names: it sends the name with the
call, as `x-gramlet-on-behalf-of: NAME`. Services that call a FeatureService need it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from gramlet.errors import InvalidInput, PermissionDenied, Unauthenticated
from gramlet.transport.channel import ON_BEHALF_OF

from gramlet_server.process.identity import NOBODY, Caller

SERVICES = ("feature", "stylize", "train", "embed")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH = re.compile(r"sha256-([0-9a-f]{64})")
_METHOD = re.compile(r"/gramlet\.(\w+)\.v1\.\w+/(\w+)")
_WRITES = {"Stylize", "Sweep", "Adjust", "Train", "DeleteHead", "Embed", "DeleteMap", "StopRun", "DeleteRun"}
_READ_ONLY, _ALL, _ON_BEHALF = _OTHER_SCOPES = ("read-only", "all", "on-behalf")
_FIELD = "--token-file"
# How often the file is looked at.
_RELOAD_SECONDS = 2.0

Callers = Mapping[bytes, Caller]
"""The caller of each token, by the SHA-256 of the token."""

_log = logging.getLogger(__name__)


def new_token(name: str, scopes: str | None = None) -> tuple[str, str]:
    """A new token and its line for the token file. Without `scopes`, it is for all services.

    Raises:
        InvalidInput: The name or a scope cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not 1 to 64 letters, digits, '-' or '_'", field="NAME")
    if scopes is not None and not _scopes_of(scopes, "--scopes"):
        raise InvalidInput("it is empty: leave it out for a token for all services", field="--scopes")
    token = secrets.token_urlsafe(32)
    return token, f"{name}:sha256-{_digest(token).hex()}" + (f":{scopes}" if scopes else "")


def is_token_of(token: str, lines: Sequence[str]) -> bool:
    """Whether these lines of a token file accept a token.

    Raises:
        InvalidInput: A line cannot be read.
    """
    return _digest(token) in read_tokens(lines, _FIELD)


def read_tokens(lines: Sequence[str], where: str) -> Callers:
    """The callers of the lines of a token file.

    Raises:
        InvalidInput: A line cannot be read, or two have one token. The error shows no token.
    """
    callers: dict[bytes, Caller] = {}
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        digest, found = _caller_of(line, f"{where}, line {number}")
        if digest in callers:
            raise InvalidInput(f"{where}, line {number}: an earlier line has this token", field=_FIELD)
        callers[digest] = found
    return callers


def read_token_file(path: Path) -> list[str]:
    """The lines of a token file.

    Raises:
        InvalidInput: It cannot be read, or has no token: the server must not accept everybody then.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", field=_FIELD) from None
    if not read_tokens(lines, str(path)):
        raise InvalidInput(f"{path} holds no token", field=_FIELD)
    return lines


def _caller_of(line: str, where: str) -> tuple[bytes, Caller]:
    if ":" not in line:
        return _digest(line), Caller()
    name, token, scopes = [*(part.strip() for part in line.split(":", 2)), ""][:3]
    if not _NAME.fullmatch(name) or not token:
        raise InvalidInput(f"{where}: a line is NAME:TOKEN or NAME:TOKEN:SCOPES", field=_FIELD)
    given = _scopes_of(scopes, _FIELD, f"{where}: ")
    services = frozenset(given.intersection(SERVICES)) or None
    hashed = _HASH.fullmatch(token)
    digest = bytes.fromhex(hashed[1]) if hashed else _digest(token)
    return digest, Caller(name, _ALL in given, services, _READ_ONLY in given, may_represent=_ON_BEHALF in given)


def _scopes_of(text: str, field: str, where: str = "") -> set[str]:
    given = {scope.strip() for scope in text.split(",") if scope.strip()}
    if unknown := sorted(given - {*SERVICES, *_OTHER_SCOPES}):
        known = ", ".join((*SERVICES, *_OTHER_SCOPES))
        raise InvalidInput(f"{where}there is no scope {unknown[0]!r}; there are {known}", field=field)
    return given


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Tokens:
    """The gate: knows each caller by the token, sent as `authorization: Bearer TOKEN`.

    Args:
        path: The token file; None: there is none.
        listed: Further lines, from a variable.
        most_runs, most_bytes: The limits of each name, as in Caller.

    Raises:
        InvalidInput: A line cannot be read, or the file has no token.
    """

    def __init__(
        self, path: Path | None = None, listed: Sequence[str] = (), *, most_runs: int = 0, most_bytes: int = 0
    ) -> None:
        self._limits: dict[str, Any] = {"most_runs": most_runs, "most_bytes": most_bytes}
        self._path = path
        self._listed = tuple(listed)
        self._read_at: tuple[int, int] | None = None
        self._callers: Callers = {}
        self._closed = threading.Event()
        self.reload()

    def __call__(self, details: grpc.HandlerCallDetails) -> Caller:
        """Who calls, or for whom. Without tokens, everybody may do everything.

        Raises:
            Unauthenticated: No token, or one that is not known.
            PermissionDenied: The token is not for this call, or not for calls for others.
            InvalidInput: The call is for something that is no name.
        """
        represented = _sent(details, ON_BEHALF_OF)
        holder = self._holder(details)
        return self._representing(holder, represented) if represented else holder

    def _representing(self, holder: Caller, name: str) -> Caller:
        if not holder.may_represent:
            message = f"the token {holder.name} may not call on behalf of others: its line needs the scope {_ON_BEHALF}"
            raise PermissionDenied(message, field=ON_BEHALF_OF)
        if not _NAME.fullmatch(name):
            raise InvalidInput("it is not 1 to 64 letters, digits, '-' or '_'", field=ON_BEHALF_OF)
        return replace(holder, name=name, via=holder.name, sees_all=False, may_represent=False, **self._limits)

    def _holder(self, details: grpc.HandlerCallDetails) -> Caller:
        """The caller whose token was sent."""
        callers = self._callers
        if not callers:
            return NOBODY
        scheme, _, token = _sent(details, "authorization").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(
                "this server requires a token: name its file with --token-file, set GRAMLET_TOKEN, or send it as "
                "authorization: Bearer TOKEN"
            )
        # The hash is looked up, not the token: how long that takes says nothing about the tokens.
        caller = callers.get(_digest(token.strip()))
        if caller is None:
            raise Unauthenticated("the token is not one of this server's")
        if (method := _METHOD.fullmatch(details.method)) is not None:
            _check_scope(caller, method[1], method[2])
        return caller

    def reload(self) -> None:
        """Reads the file again.

        Raises:
            InvalidInput: A line cannot be read, or the file has no token. Those in use stay.
        """
        self._read_at = self._state()
        lines = read_token_file(self._path) if self._path else []
        callers = read_tokens((*lines, *self._listed), str(self._path or "GRAMLET_TOKENS"))
        self._callers = {digest: replace(caller, **self._limits) for digest, caller in callers.items()}
        plain = sum(bool(line.strip()) and not _is_hash(line) for line in lines)
        if plain:
            message = "%s has %d tokens as they are: keep only their hashes (gramlet-server token new NAME)"
            _log.warning(message, self._path, plain)

    def keep_reading(self) -> None:
        """Reads the file again whenever it changes, in a thread, until `close`."""
        if self._path is not None:
            threading.Thread(target=self._watch, name="tokens", daemon=True).start()

    def try_reload(self) -> None:
        """Reads the file again; if it cannot be used, logs why and keeps the tokens in use."""
        try:
            self.reload()
        except InvalidInput as error:
            _log.warning("keeping the tokens in use: %s", error)
        else:
            _log.info("%d tokens read again", len(self._callers))

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_RELOAD_SECONDS):
            if self._state() != self._read_at:
                self.try_reload()

    def _state(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._path or "")
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns


def _sent(details: grpc.HandlerCallDetails, wanted: str) -> str:
    """What the caller sent under a key, or the empty string."""
    return next((str(value) for key, value in details.invocation_metadata or () if key == wanted), "")


def _is_hash(line: str) -> bool:
    return line.lstrip().startswith("#") or bool(_HASH.fullmatch(line.split(":")[1].strip() if ":" in line else ""))


def _check_scope(caller: Caller, service: str, method: str) -> None:
    if caller.services is not None and service in SERVICES and service not in caller.services:
        raise PermissionDenied(f"the token {caller.name} is not for the {service} service")
    if caller.read_only and method in _WRITES:
        raise PermissionDenied(f"the token {caller.name} may only read")
