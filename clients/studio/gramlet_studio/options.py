"""The options of the studio."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1_000_000


def default_data() -> Path:
    """Where the studio keeps uploads: GRAMLET_STUDIO_DATA, or a folder in the user's data folder (XDG)."""
    given = os.environ.get("GRAMLET_STUDIO_DATA")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(given) if given else Path(base) / "gramlet-studio"


@dataclass(frozen=True)
class StudioOptions:
    """How the studio serves its page.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0: a free one.
        data: Folder of uploaded pictures and of the orders of runs.
        allowed_hosts: Further names by which browsers may reach the page, besides those of the loopback address.
        picture_bytes: The largest picture that is taken, in bytes.
        folder_files: The most files in one folder.
        folder_bytes: The most bytes in one folder.
        open: Whether to open the page in the user's browser.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    data: Path = field(default_factory=default_data)
    allowed_hosts: tuple[str, ...] = ()
    picture_bytes: int = 32 * MEGABYTE
    folder_files: int = 20_000
    folder_bytes: int = 4_000 * MEGABYTE
    open: bool = False
