"""The hostile half of bench_hostile.py, in a process of its own: attacks on a server, in turns, until it is terminated.

    python tests/bench/hostile_attackers.py [--only KIND] [--] ADDRESS TOKEN [OTHER_ADDRESS ...]

Prints the attacks so far, and the status codes of what was answered, as one JSON object when it ends.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import grpc
from gramlet.embed.v1 import embed_pb2
from gramlet.feature.v1 import feature_pb2
from gramlet.stylize.v1 import stylize_pb2
from gramlet.tensor.v1 import picture_pb2, tensor_pb2
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.http2 import Connection
from tests.rpc.test_fuzz import methods, outcome

EXTRACT = "/gramlet.feature.v1.FeatureService/Extract"
WATCH = "/grpc.health.v1.Health/Watch"
KINDS = (
    *("silent_strangers", "silent_calls", "resets", "pings", "watches_without_window", "watches_that_are_reset"),
    *("unread_replies", "large_messages_of_strangers", "costly_pictures", "bombs", "extreme_maps"),
    *("runs_that_are_left", "broken_messages"),
)
"""The methods of `Attacker` that attack."""
PAUSE = 0.2
"""Seconds between two attacks of a thread: the machine has to be left some processor for those who are measured."""
TIMEOUT = 10.0


class Attacker:
    """Attacks one address.

    Args:
        address: Of the server.
        token: Of a name with limits.
        seed: Of everything random.
        kinds: Of the attacks that it makes.

    Attributes:
        done: How often each attack was made.
        codes: What calls were answered.
    """

    def __init__(self, address: str, token: str, seed: int, kinds: Sequence[str] = KINDS) -> None:
        self._address = address
        self._token = token
        self._kinds = kinds
        self._random = random.Random(seed)
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._held: list[Connection] = []
        self.done: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def attack(self) -> None:
        """Makes one of the attacks."""
        kind = self._random.choice(self._kinds)
        with suppress(OSError, grpc.RpcError):
            getattr(self, kind)()
        self.done[kind] += 1
        while len(self._held) > 20:  # those that are silent stay for a while
            self._held.pop(0).close()

    def silent_strangers(self) -> None:
        """Calls without a token that send no message."""
        self._send(b"".join, lambda connection: [connection.call(EXTRACT) for _ in range(200)])

    def silent_calls(self) -> None:
        """The same with a token."""
        self._send(b"".join, lambda connection: [connection.call(EXTRACT, self._token) for _ in range(50)])

    def resets(self) -> None:
        """Calls that are reset at once."""
        self._send(b"".join, lambda connection: [connection.call(EXTRACT, reset=True) for _ in range(500)])

    def pings(self) -> None:
        """A flood of pings."""
        self._send(b"".join, lambda connection: [connection.ping() for _ in range(2000)])

    def watches_without_window(self) -> None:
        """Watches of the health whose replies are never taken."""
        connection = Connection(self._address, window=0)
        connection.send(b"".join(connection.call(WATCH, ends=True) for _ in range(100)))
        self._held.append(connection)

    def watches_that_are_reset(self) -> None:
        """Watches of the health that end at once."""
        self._send(b"".join, lambda connection: [connection.call(WATCH, ends=True, reset=True) for _ in range(300)])

    def unread_replies(self) -> None:
        """A connection that reads nothing."""
        connection = Connection(self._address, reads=False)
        connection.send(b"".join(connection.call(EXTRACT) + connection.ping() for _ in range(100)))
        self._held.append(connection)

    def large_messages_of_strangers(self) -> None:
        """Messages of 8 MB without a token."""
        for _ in range(3):
            self._unary(EXTRACT, bytes(8_000_000), ())

    def costly_pictures(self) -> None:
        """Files that take long to decode, or many bytes once they are decoded."""
        picture = io.BytesIO()
        shape = (3000, 2000)
        Image.effect_noise(shape, 80).save(picture, "JPEG", progressive=True, quality=95)
        self._extract([picture.getvalue()])

    def bombs(self) -> None:
        """Small files of many pixels."""
        self._extract([_gray_png(7900)] * 8)

    def extreme_maps(self) -> None:
        """Maps of settings and vectors that no one would choose."""
        worst = self._random.choice([float("nan"), float("inf"), 1e38, 0.0])
        settings = embed_pb2.Settings(
            descriptor=embed_pb2.DESCRIPTOR_VECTOR,
            tsne=embed_pb2.Tsne(iterations=50, learning_rate=self._random.choice([1e6, 1e-3, 1e308])),
        )
        requests = [embed_pb2.EmbedRequest(start=embed_pb2.EmbedRequest.Start(settings=settings, count=20))]
        for number in range(20):
            data = struct.pack("<8f", *(self._random.choice([worst, number, 1.0]) for _ in range(8)))
            vector = tensor_pb2.Tensor(element_type=1, shape=[8], data=data)
            requests.append(embed_pb2.EmbedRequest(item=embed_pb2.Item(id=str(number), vector=vector)))
        self._stream("/gramlet.embed.v1.EmbedService/Embed", [each.SerializeToString() for each in requests], 1000)

    def runs_that_are_left(self) -> None:
        """Stylizations whose caller leaves."""
        content = picture_pb2.Picture(encoded=_gray_png(64))
        stylization = stylize_pb2.Stylization(
            content=content,
            styles=[feature_pb2.Style(picture=content)],
            settings=stylize_pb2.Settings(size=64, iterations=100_000),
        )
        request = stylize_pb2.StylizeRequest(stylization=stylization).SerializeToString()
        for replies in (0, 1, 5):
            self._stream("/gramlet.stylize.v1.StylizeService/Stylize", [request], replies)

    def broken_messages(self) -> None:
        """Random and mutated messages to random calls."""
        for _ in range(20):
            method = self._random.choice(methods())
            self.codes[outcome(self._channel, method, self._random.randrange(2**32), self._metadata).name] += 1

    def _send(self, join: Callable[[list[bytes]], bytes], frames: Callable[[Connection], list[bytes]]) -> None:
        connection = Connection(self._address)
        connection.send(join(frames(connection)))
        self._held.append(connection)

    def _extract(self, files: list[bytes]) -> None:
        pictures = [picture_pb2.Picture(encoded=file) for file in files]
        extraction = feature_pb2.Extraction(stages=["conv1"], forms=[3])
        request = feature_pb2.ExtractRequest(extraction=extraction, pictures=pictures)
        self._unary(EXTRACT, request.SerializeToString(), self._metadata)

    def _unary(self, path: str, message: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        try:
            self._channel.unary_unary(path)(message, timeout=TIMEOUT, metadata=metadata)
            self.codes["OK"] += 1
        except grpc.RpcError as error:
            self._note(error)

    def _stream(self, path: str, messages: list[bytes], replies: int) -> None:
        """Sends messages, reads some replies and leaves."""
        call = self._channel.stream_stream(path)(iter(messages), timeout=TIMEOUT, metadata=self._metadata)
        try:
            for _ in zip(range(replies), call, strict=False):
                pass
            self.codes["OK"] += 1
        except grpc.RpcError as error:
            self._note(error)
        finally:
            call.cancel()

    def _note(self, error: grpc.RpcError) -> None:
        """Counts a status; one that would be a bug, with its message."""
        code = error.code()
        is_bug = code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        self.codes[f"{code.name}: {error.details()[:100]}" if is_bug else code.name] += 1


def _gray_png(side: int) -> bytes:
    """A PNG file of side x side black pixels in some bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (side + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def main() -> None:
    """Attacks until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="ADDRESS")
    parser.add_argument("token", metavar="TOKEN")
    parser.add_argument("others", metavar="OTHER_ADDRESS", nargs="*")
    parser.add_argument("--only", choices=KINDS, metavar="KIND")
    parsed = parser.parse_args()
    kinds = [parsed.only] if parsed.only else KINDS
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    attackers = [
        Attacker(address, parsed.token, seed, kinds) for seed, address in enumerate([parsed.first, *parsed.others])
    ]

    def keep_attacking(attacker: Attacker) -> None:
        while not over.is_set():
            attacker.attack()
            time.sleep(PAUSE)

    for attacker in attackers:
        threading.Thread(target=keep_attacking, args=[attacker], daemon=True).start()
    while not over.wait(0.5):
        pass  # a signal that another thread receives does not end a wait of this one
    done = sum((attacker.done for attacker in attackers), Counter[str]())
    codes = sum((attacker.codes for attacker in attackers), Counter[str]())
    print(json.dumps({"attacks": done, "codes": codes}))


if __name__ == "__main__":
    main()
