"""What identifies a picture: the same content has the same hash everywhere, in caches, stores and requests."""

from __future__ import annotations

import hashlib

import numpy as np

from gramlet.types import Picture


def picture_hash(picture: Picture) -> str:
    """SHA-256 of an encoded file, or of pixels with their type and shape. Hexadecimal."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    sha = hashlib.sha256(f"{picture.dtype}{picture.shape}".encode())
    sha.update(np.ascontiguousarray(picture).data)
    return sha.hexdigest()
