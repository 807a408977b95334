"""One client process of `bench_ingress.py`: sends pictures for some seconds, and prints what it saw and used as JSON.

python ingress_client.py ADDRESS FOLDER WAY CALLERS SECONDS
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gramlet import Client
from gramlet.feature.types import Features
from gramlet.types import Resize, ResizeMode

WHAT: Any = {"stages": ["avgpool"], "pooled": True, "resize": Resize(ResizeMode.CENTER_CROP, 224)}


call_seconds: list[float] = []
"""How long each unary call took."""


def main(address: str, folder: str, way: str, callers: str, seconds: str) -> None:
    """Warms up, measures, prints."""
    pictures = [_read(path) for path in sorted(Path(folder).iterdir())]
    measure = {"stream": stream, "unary": unary}[way]
    with Client(address) as client, ThreadPoolExecutor(int(callers)) as pool:

        def run(duration: float) -> tuple[int, float, float]:
            until = time.monotonic() + duration
            began, used = time.monotonic(), _processor_seconds()
            each = [pool.submit(measure, client, _from(pictures, n, until)) for n in range(int(callers))]
            count = sum(future.result() for future in each)
            return count, time.monotonic() - began, _processor_seconds() - used

        run(0.5)
        call_seconds.clear()
        count, took, used = run(float(seconds))
    found = {"pictures": count, "seconds": took, "processor_seconds": used}
    if call_seconds:
        found["p99_seconds"] = float(np.quantile(call_seconds, 0.99))
    print(json.dumps(found))


def stream(client: Client, pictures: Iterator[Any]) -> int:
    """How many outcomes came."""
    return sum(_is_right(outcome) for outcome in client.features(pictures, **WHAT))


def unary(client: Client, pictures: Iterator[Any]) -> int:
    """How many calls were answered."""
    call: Callable[..., Any] = client.features
    count = 0
    for picture in pictures:
        began = time.monotonic()
        count += _is_right(call(picture, **WHAT))
        call_seconds.append(time.monotonic() - began)
    return count


def _is_right(outcome: Any) -> bool:
    assert isinstance(outcome, Features), outcome
    assert outcome.pooled["avgpool"].shape == (2048,)
    return True


def _read(path: Path) -> Any:
    return np.load(path) if path.suffix == ".npy" else path.read_bytes()


def _from(pictures: list[Any], first: int, until: float) -> Iterator[Any]:
    for number in itertools.count(first):
        if time.monotonic() > until:
            return
        yield pictures[number % len(pictures)]


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
