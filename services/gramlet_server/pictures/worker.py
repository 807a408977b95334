"""A process that decodes files for `pictures.workers`: `python -m gramlet_server.pictures.worker SOCKET MEMORY LIMITS`.

SOCKET and MEMORY are inherited file descriptors. Over the socket come lines of JSON, and go lines of JSON; files and
pixels are in the shared memory. A request is `{"files": [[offset, length], ...], "resize": [mode, size], "pixels":
offset}`. It is answered by a line for each file: `{"at": offset, "shape": [H, W, C], "size": [height, width], "box":
[...]}`, or `{"error": message, "field": field}`; pixels lie from the offset `pixels` on, one after the other. Where the
next do not fit, `{"full": true}` asks for a line that says that all pixels so far were taken.

A file that takes more seconds of processor time than allowed ends this process: the kernel's timer does it, so it
works inside of every decoder.
"""

from __future__ import annotations

import json
import mmap
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any, TextIO

import numpy as np
from gramlet.errors import GramletError, InvalidInput
from gramlet.types import Limits, Resize, ResizeMode

from gramlet_server.pictures.prepare import Decoded, decode_for


def main(arguments: list[str]) -> None:
    """Serves requests until the socket is closed."""
    settings = json.loads(arguments[2])
    limits, seconds = Limits(**settings["limits"]), settings["seconds"]
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the parent, which drains and closes the socket
        signal.signal(number, signal.SIG_IGN)
    memory = mmap.mmap(int(arguments[1]), 0)
    with socket.socket(fileno=int(arguments[0])) as connection, connection.makefile("rw") as lines:
        for line in lines:
            _serve(json.loads(line), memory, limits, seconds, lines)


def _serve(request: dict[str, Any], memory: mmap.mmap, limits: Limits, seconds: float, lines: TextIO) -> None:
    mode, size = request["resize"]
    resize = Resize(ResizeMode(mode), size)
    free = request["pixels"]
    for offset, length in request["files"]:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process
        answer: dict[str, Any]
        try:
            decoded = decode_for(memory[offset : offset + length], resize, limits, "picture")
        except GramletError as error:
            answer = {"error": error.message, "field": error.field}
        else:
            if free + decoded.pixels.nbytes > len(memory):
                _say({"full": True}, lines)
                lines.readline()
                free = request["pixels"]
            answer = _put(decoded, memory, free)
            free += decoded.pixels.nbytes
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer, lines)


def _put(decoded: Decoded, memory: mmap.mmap, at: int) -> dict[str, Any]:
    pixels = decoded.pixels
    np.frombuffer(memory, np.uint8, pixels.nbytes, at).reshape(pixels.shape)[...] = pixels
    return {
        "at": at,
        "shape": pixels.shape,
        "size": [decoded.height, decoded.width],
        "box": decoded.box,
    }


def _say(answer: dict[str, Any], lines: TextIO) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


def settings_of(limits: Limits, seconds: float) -> str:
    """The third argument of this program."""
    return json.dumps({"limits": asdict(limits), "seconds": seconds})


def outcome_of(answer: dict[str, Any], memory: mmap.mmap) -> Decoded | GramletError:
    """What an answer says; the pixels are copied.

    Raises:
        ValueError, TypeError, KeyError: It says nothing that this program says.
    """
    if "error" in answer:
        return InvalidInput(str(answer["error"]), field=str(answer["field"]))
    height, width, channels = map(int, answer["shape"])
    count = height * width * channels
    if min(height, width) < 1 or channels != 3:
        raise ValueError("not a picture")
    pixels = np.frombuffer(memory, np.uint8, count, int(answer["at"])).reshape(height, width, 3).copy()
    left, top, right, bottom = map(float, answer["box"])
    new_height, new_width = map(int, answer["size"])
    return Decoded(pixels, new_height, new_width, (left, top, right, bottom))


if __name__ == "__main__":
    main(sys.argv[1:])
