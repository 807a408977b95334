"""What travels between gramlet's services, as Python sees it: plain frozen dataclasses over NumPy arrays.

Client and server share these. Nothing here knows gRPC: each service's `wire.py` turns them into messages and back.
Arrays are C-contiguous; activations are (C, H, W), Gram matrices (C, C), pictures (3, H, W) float32 RGB in 0..1.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gramlet.errors import InvalidInput
from gramlet.signatures import checks_calls

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

Picture = bytes | Array | Pixels
"""An encoded file, or pixels: (3, H, W) float32 in 0..1, or (H, W, 3) uint8. As a mask also (H, W) of either."""


class ElementType(Enum):
    """The type of one element of a tensor on the wire."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    UINT8 = "uint8"


class ResizeMode(Enum):
    """What the size of a `Resize` measures."""

    KEEP = "keep"
    LONGEST_SIDE = "longest-side"
    SHORTEST_SIDE = "shortest-side"
    CENTER_CROP = "center-crop"
    STRETCH = "stretch"


@checks_calls
@dataclass(frozen=True)
class Resize:
    """How a picture is brought to the size that the network sees.

    `size` is in pixels and must be positive unless the mode is KEEP. Resampling is Lanczos with antialiasing.
    """

    mode: ResizeMode = ResizeMode.KEEP
    size: int = 0


@dataclass(frozen=True)
class Timing:
    """Where the time of a reply went, in seconds. A device pass shared by a batch counts whole for each member.

    `batch_size` is 0 where no pass was needed: the features were still known.
    """

    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batch_size: int = 1


@dataclass(frozen=True)
class Limits:
    """What a FeatureService accepts; the defaults are the server's."""

    message_bytes: int = 64 * 1024 * 1024
    picture_bytes: int = 32 * 1024 * 1024
    decoded_pixels: int = 64_000_000
    network_pixels: int = 4096 * 4096
    pictures_per_extract: int = 64


_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def short_digest(digest: str) -> str:
    """A weights digest in messages: its first 12 digits, and how pictures are decoded where that is not the default."""
    weights, plus, pixels = digest.partition("+")
    return f"{weights[:12]}{plus}{pixels}"


def check_name(name: str, field: str) -> str:
    """The name itself: the one rule for names of runs, sweeps, maps and heads, which become parts of paths in a store.

    Raises:
        InvalidInput: It is not 1 to 64 letters, digits, '-' or '_'.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not 1 to 64 letters, digits, '-' or '_'", field=field)
    return name


def new_name() -> str:
    """A name that nothing else has: 16 random hexadecimal digits."""
    return secrets.token_hex(8)
