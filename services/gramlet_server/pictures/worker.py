"""A process that decodes files for `pictures.workers`.

python -m gramlet_server.pictures.worker SOCKET MEMORY SECONDS

SOCKET and MEMORY are inherited file descriptors. Over the socket come lines of JSON, and go lines of JSON; files and
pixels are in the shared memory. A request is `{"files": [[offset, length], ...], "task": {...}, "pixels": offset}`. It
is answered by a line for each file: `{"at": offset, "shape": [H, W, C]}`, which with the task `resized` has also `size`
and `box`; `{"none": true}`, where there is nothing; or `{"error": message, "field": field}`. Pixels lie from the offset
`pixels` on, one after the other. Where the next do not fit, `{"full": true}` asks for a line that says that all pixels
so far were taken.

A file that takes more seconds of processor time than allowed ends this process: the kernel's timer does it, so it
works inside of every decoder.
"""

from __future__ import annotations

import json
import math
import mmap
import signal
import socket
import sys
from typing import Any, TextIO

import numpy as np
from gramlet.errors import GramletError, InvalidInput
from gramlet.types import Pixels

from gramlet_server.pictures.decode import decode, opacity
from gramlet_server.pictures.offload import Kind, Task
from gramlet_server.pictures.prepare import Decoded, decode_for


def main(arguments: list[str]) -> None:
    """Serves requests until the socket is closed."""
    seconds = float(arguments[2])
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the parent, which drains and closes the socket
        signal.signal(number, signal.SIG_IGN)
    memory = mmap.mmap(int(arguments[1]), 0)
    with socket.socket(fileno=int(arguments[0])) as connection, connection.makefile("rw") as lines:
        for line in lines:
            _serve(json.loads(line), memory, seconds, lines)


def _serve(request: dict[str, Any], memory: mmap.mmap, seconds: float, lines: TextIO) -> None:
    task = Task.of_json(request["task"])
    free = request["pixels"]
    for offset, length in request["files"]:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process
        answer: dict[str, Any]
        try:
            found = _carried_out(memory[offset : offset + length], task)
        except GramletError as error:
            answer = {"error": error.message, "field": error.field}
        else:
            pixels = found.pixels if isinstance(found, Decoded) else found
            if pixels is None:
                answer = {"none": True}
            elif request["pixels"] + pixels.nbytes > len(memory):
                answer = {"error": "more pixels than this server's decoders take: send it smaller", "field": "picture"}
            else:
                if free + pixels.nbytes > len(memory):
                    _say({"full": True}, lines)
                    lines.readline()
                    free = request["pixels"]
                answer = _put(pixels, memory, free)
                free += pixels.nbytes
            if isinstance(found, Decoded):
                answer |= {"size": [found.height, found.width], "box": found.box}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer, lines)


def _carried_out(file: bytes, task: Task) -> Decoded | Pixels | None:
    match task.kind:
        case Kind.RESIZED:
            return decode_for(file, task.resize, task.limits)
        case Kind.WHOLE:
            return decode(file, task.limits, background=task.background)
        case Kind.OPACITY:
            return opacity(file, task.limits)


def _put(pixels: Pixels, memory: mmap.mmap, at: int) -> dict[str, Any]:
    np.frombuffer(memory, np.uint8, pixels.nbytes, at).reshape(pixels.shape)[...] = pixels
    return {"at": at, "shape": pixels.shape}


def _say(answer: dict[str, Any], lines: TextIO) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


def outcome_of(answer: dict[str, Any], memory: mmap.mmap) -> Decoded | Pixels | GramletError | None:
    """What an answer says; the pixels are copied.

    Raises:
        ValueError, TypeError, KeyError: It says nothing that this program says.
    """
    if "error" in answer:
        return InvalidInput(str(answer["error"]), field=str(answer["field"]))
    if "none" in answer:
        return None
    shape = tuple(map(int, answer["shape"]))
    if min(shape) < 1 or shape[2:] not in ((), (3,)):
        raise ValueError("not a picture")
    pixels = np.frombuffer(memory, np.uint8, math.prod(shape), int(answer["at"])).reshape(shape).copy()
    if "size" not in answer:
        return pixels
    left, top, right, bottom = map(float, answer["box"])
    height, width = map(int, answer["size"])
    return Decoded(pixels, height, width, (left, top, right, bottom))


if __name__ == "__main__":
    main(sys.argv[1:])
