"""The one rule for names of runs, sweeps, maps and heads. They become parts of paths in the store."""

from __future__ import annotations

import re
import secrets

from gramlet.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_name(name: str, field: str) -> str:
    """The name itself.

    Raises:
        InvalidInput: It is not 1 to 64 letters, digits, '-' or '_'.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not 1 to 64 letters, digits, '-' or '_'", field=field)
    return name


def new_name() -> str:
    """A name that nothing else has: 16 random hexadecimal digits."""
    return secrets.token_hex(8)
