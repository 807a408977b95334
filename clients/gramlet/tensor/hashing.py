"""What identifies a picture: the same content has the same hash everywhere, in caches, stores and requests."""

from __future__ import annotations

import hashlib

import numpy as np

from gramlet.types import Array, Picture


def picture_hash(picture: Picture) -> str:
    """SHA-256 of an encoded file, or of pixels with their type and shape. Hexadecimal."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    sha = hashlib.sha256(f"{picture.dtype}{picture.shape}".encode())
    sha.update(np.ascontiguousarray(picture).data)
    return sha.hexdigest()


def content_hash(*parts: Picture | Array | None) -> str:
    """The hashes of several parts, one after the other; absent parts count too."""
    return ".".join("" if part is None else picture_hash(part) for part in parts)
