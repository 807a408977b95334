"""Pooled features of JPEG files at 224 px beside bare torch loops, in one run: pictures a second, p50, p99 of a call.

    python tests/bench/bench_features.py [--pictures 256] [--callers 1,8,32] [--ways float32,bfloat16]

The bare loops are torchvision's network in inference mode: one picture at a time, and in batches, decoding ahead in
threads; the best batch size counts.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Client
from gramlet.types import Features, Resize, ResizeMode
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import Cluster
from tests.stylize.direct import torchvision_resnet50

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = Path(os.environ.get("GRAMLET_TEST_WEIGHTS") or SHARED / "weights/resnet50.safetensors")
SIZE = 224
RESIZE = Resize(ResizeMode.CENTER_CROP, SIZE)
BATCHES = (8, 16, 32)
ROUNDS = 3


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--callers", default="1,8,32")
    parser.add_argument("--ways", default="float32,bfloat16")
    chosen = parser.parse_args(arguments)
    files = jpegs(chosen.pictures)
    network = torchvision_resnet50(WEIGHTS)
    callers = [int(number) for number in chosen.callers.split(",")]
    rates: dict[str, list[float]] = {}
    calls: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster, ThreadPoolExecutor(2) as pool:
        threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
        servers = {
            way: cluster.server("feature", f"--weights={WEIGHTS}", f"--precision={way}", environment=threads)
            for way in chosen.ways.split(",")
        }
        for server in servers.values():
            server.wait_until_ready()
        for _ in range(ROUNDS):
            for batch in (1, *BATCHES):
                some = files[:64] if batch == 1 else files
                rates.setdefault(f"bare loop, batches of {batch}", []).append(bare(network, some, batch, pool))
            for way, server in servers.items():
                for number in callers:
                    some = files[:64] if number == 1 else files
                    rate, latencies = served(server.address, some, number)
                    rates.setdefault(f"gramlet {way}, {number} callers", []).append(rate)
                    calls.setdefault(f"gramlet {way}, {number} callers", []).extend(latencies)
    best = max(statistics.median(rates[f"bare loop, batches of {batch}"]) for batch in BATCHES)
    one = statistics.median(rates["bare loop, batches of 1"])
    rows = []
    for way, measured in rates.items():
        rate = statistics.median(measured)
        row: dict[str, Any] = {"bench": "features", "way": way, "pictures_per_second": round(rate, 1)}
        row |= {"times_best_bare_loop": round(rate / best, 2), "times_batch_of_one": round(rate / one, 2)}
        if way in calls:
            p50, p99 = np.percentile(calls[way], [50, 99])
            row |= {"p50_seconds": round(float(p50), 3), "p99_seconds": round(float(p99), 3)}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def jpegs(count: int) -> list[bytes]:
    """JPEG files of 256 x 256 pixels: the sample pictures, cut at different places."""
    random = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted(SHARED.glob("samples/*/*.jpg"))[:6]]
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(random.integers(0, max(1, side - 256))) for side in source.size)
        file = io.BytesIO()
        source.crop((left, top, left + 256, top + 256)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def decoded(file: bytes) -> torch.Tensor:
    """(3, SIZE, SIZE), normalised: shorter side to SIZE, center cropped."""
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    scale = SIZE / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - SIZE) // 2, (picture.height - SIZE) // 2
    pixels = torch.from_numpy(np.array(picture.crop((left, top, left + SIZE, top + SIZE)))).permute(2, 0, 1) / 255
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return (pixels - mean) / deviation


def bare(network: Any, files: Sequence[bytes], batch: int, pool: ThreadPoolExecutor) -> float:
    """Pictures a second."""
    began = time.perf_counter()
    with torch.inference_mode():
        pictures = pool.map(decoded, files) if batch > 1 else map(decoded, files)
        waiting: list[torch.Tensor] = []
        for picture in pictures:
            waiting.append(picture)
            if len(waiting) == batch:
                x = network.maxpool(torch.relu(network.bn1(network.conv1(torch.stack(waiting)))))
                network.avgpool(network.layer4(network.layer3(network.layer2(network.layer1(x))))).numpy()
                waiting = []
    return len(files) / (time.perf_counter() - began)


def served(address: str, files: Sequence[bytes], callers: int) -> tuple[float, list[float]]:
    """Pictures a second, and seconds of each call of one picture."""
    with Client(address) as client, ThreadPoolExecutor(callers) as pool:

        def call(file: bytes) -> float:
            began = time.perf_counter()
            found = client.features(file, stages=["avgpool"], pooled=True, resize=RESIZE)
            assert isinstance(found, Features)
            return time.perf_counter() - began

        call(files[0])
        began = time.perf_counter()
        latencies = list(pool.map(call, files))
        return len(files) / (time.perf_counter() - began), latencies


if __name__ == "__main__":
    main()
