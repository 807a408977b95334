"""The machine's matrix peak, and the share of it that a gradient of preset `classic` reaches.

python tests/bench/bench_peak.py
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gramlet.feature.types import Objective, Style
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.process.allocator import ALLOCATOR
from gramlet_server.stylize.presets import PRESETS
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.bench_stylize import SAMPLES, WEIGHTS, picture
from tests.stylize.direct import classic_loss, torchvision_resnet50

SIDE = 4096


def main() -> list[dict[str, Any]]:
    """Runs the rows, prints each, and returns them."""
    ALLOCATOR.keep_large_blocks()
    rows = peaks()
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def peaks() -> list[dict[str, Any]]:
    """One row a precision and size."""
    rows = []
    for precision in ("float32", "bfloat16"):
        matrix = torch.randn(SIDE, SIDE, dtype=getattr(torch, precision))
        peak = 2 * SIDE**3 / median(lambda m=matrix: m @ m, 5)
        for size in (256, 512):
            content, style = (
                picture(SAMPLES / name, size) for name in ("content/tubingen.jpg", "style/starry_night.jpg")
            )
            classic = PRESETS["resnet50"]["classic"]
            objective = Objective(
                content,
                classic.content_stage or "",
                1.0,
                (Style(style, 1.0),),
                classic.style_stages or {},
                1000.0,
            )
            work = operations(content, style)
            engine = Engine(load_network("resnet50", str(WEIGHTS), "cpu", precision))
            with engine.differentiate(objective) as differentiation:
                seconds = median(lambda d=differentiation, c=content: d.evaluate(c), 7)
            engine.close()
            rows.append(
                {
                    "bench": "peak",
                    "precision": precision,
                    "size": size,
                    "peak_gflops": round(peak / 1e9),
                    "gradient_gflop": round(work / 1e9, 1),
                    "seconds": round(seconds, 4),
                    "share_of_peak": round(work / seconds / peak, 3),
                }
            )
    return rows


def operations(content: Any, style: Any) -> int:
    """Floating point operations of the direct loop's loss and gradient: what must be computed, however it is done."""
    loss = classic_loss(torchvision_resnet50(WEIGHTS), torch.tensor(content), torch.tensor(style))
    image = torch.tensor(content).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        loss(image).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def median(run: Callable[[], Any], times: int) -> float:
    """Seconds, after two runs that are not counted."""
    seconds = []
    for _ in range(times + 2):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
