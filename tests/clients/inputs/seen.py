"""How the server sees a picture of a caller."""

from __future__ import annotations

from typing import Any

from gramlet.types import Limits, Picture, Resize
from gramlet_server.pictures.prepare import prepare


def as_seen(picture: Picture) -> Any:
    """The picture as the server sees it, (3, H, W) in 0..1."""
    return prepare(picture, Resize(), Limits())
