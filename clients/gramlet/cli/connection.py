"""How a command reaches the server: a client from the command line's flags."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from gramlet._async.client import AsyncClient
from gramlet._sync.client import Client
from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.inputs.files import open_file
from gramlet.transport.tls import Tls

C = TypeVar("C", Client, AsyncClient)

_FLAGS = {"address": "--server", "token": "--token-file", "patience": "--wait"}
"""The flags of a client's keywords that have another name."""


def make_client(kind: type[C], arguments: argparse.Namespace) -> C:
    """A client of this kind for the server that the flags name.

    Raises:
        InvalidInput, NotFound: A flag is wrong, or a file that it names.
    """
    token, tls = _token(arguments.token_file), _tls(arguments)
    waits = {"timeout": arguments.timeout, "patience": arguments.wait}
    try:
        return kind(arguments.server, token=token, tls=tls, weights_digest=arguments.weights_digest, **waits)
    except GramletError as error:
        field, _, file = error.field.partition(".")
        error.field = f"--tls-{file}" if field == "tls" else _FLAGS.get(error.field, error.field)
        raise


def _token(path: Path | None) -> str | None:
    if path is None:
        return None  # the client reads GRAMLET_TOKEN
    try:
        with open_file(path) as file:
            token = file.read().decode().strip()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", field="--token-file") from None
    except ValueError:
        raise InvalidInput(f"{path} is not text", field="--token-file") from None
    if not token:
        raise InvalidInput(f"{path} is empty", field="--token-file")
    return token


def _tls(arguments: argparse.Namespace) -> Tls | bool | None:
    if arguments.tls_ca or arguments.tls_cert or arguments.tls_key:
        return Tls(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    return arguments.tls or None
