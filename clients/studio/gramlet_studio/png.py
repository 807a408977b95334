"""Text in PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_HEADER_END = 8 + 25  # the signature, and the chunk IHDR


def with_text(png: bytes, texts: Mapping[str, str]) -> bytes:
    """The PNG file with texts in its metadata, as chunks iTXt (PNG specification, 11.3.3.4)."""
    chunks = b"".join(_international_text(keyword, text) for keyword, text in texts.items())
    return png[:_HEADER_END] + chunks + png[_HEADER_END:]


def _international_text(keyword: str, text: str) -> bytes:
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
