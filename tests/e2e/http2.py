"""A raw HTTP/2 client: frames that gRPC's own client would not send."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress

HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8
UNKNOWN = 0xEE
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = struct.pack(">I", 8)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


FLOODS = {
    "settings": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)),
    "empty settings": frame(SETTINGS, 0, 0),
    "priority": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 16)),
    "unknown": frame(UNKNOWN, 0, 0, bytes(8)),
    "pings": frame(PING, 0, 0, bytes(8)),
    "window updates": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
}
"""A frame of each kind that a client may send again and again without a call."""


class Connection:
    """A connection to `host:port`. It acknowledges settings and pings, and drops everything else that it receives.

    Args:
        address: Of the server.
        window: The initial window of its streams: 0 takes no reply.
        reads: Whether it reads what the server sends.

    Attributes:
        ended: Set when the server has closed the connection, or has announced it.
    """

    def __init__(self, address: str, *, window: int = 65_535, reads: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._sending = threading.Lock()
        self._next = 1
        self.ended = threading.Event()
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, data: bytes) -> bool:
        """Sends bytes; whether the connection still takes them."""
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            self.ended.set()
        return not self.ended.is_set()

    def call(
        self, path: str, token: str = "", *, ends: bool = False, reset: bool = False, authority: str = "127.0.0.1"
    ) -> bytes:
        """The frames of a call without a message, to be sent."""
        stream, self._next = self._next, self._next + 2
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority)]
        pairs += [("content-type", "application/grpc"), ("te", "trailers")]
        pairs += [("authorization", f"Bearer {token}")] if token else []
        opening = frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, _literal(pairs))
        return opening + (frame(RESET, 0, stream, CANCEL) if reset else b"")

    def ping(self) -> bytes:
        """A ping, to be sent."""
        return frame(PING, 0, 0, bytes(8))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
        self._socket.close()

    def _read(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                head = self._exactly(9)
                payload = self._exactly(int.from_bytes(head[:3], "big"))
                if head[3] == GOAWAY:
                    break
                if head[3] in (SETTINGS, PING) and not head[4] & ACK:
                    self.send(frame(head[3], ACK, 0, payload if head[3] == PING else b""))
        self.ended.set()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := self._socket.recv(size - len(data))):
                raise EOFError
            data += more
        return data


def _literal(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Headers without compression (RFC 7541, section 6.2.2)."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)


def _text(value: str) -> bytes:
    data, rest = value.encode(), len(value) - 127
    if rest < 0:
        return bytes([len(data)]) + data
    length = bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + data
