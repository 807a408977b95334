"""Maps of style beside the direct way, in one run: seconds, peak memory, trustworthiness.

The direct way flattens the four Gram matrices of each picture into one float32 matrix and gives it to scikit-learn's
TSNE(init="pca", random_state=0). Both ways read the same file of Gram matrices, each in a process of its own; what a
process held before it began is taken off its peak.

    python tests/bench/bench_maps.py [--pictures 400] [--synthetic 2000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS = {"conv1": 64, "maxpool": 64, "layer1": 256, "layer2": 512}
ELEMENTS = sum(channels**2 for channels in CHANNELS.values())
SIDE = 96


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--synthetic", type=int, default=2000)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--file", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.way:
        print(json.dumps(measured(chosen.way, chosen.file)))
        return []
    rows = []
    with tempfile.TemporaryDirectory(prefix="gramlet-bench-") as scratch:
        for name, grams in (
            (f"{chosen.pictures} pictures", of_pictures(chosen.pictures, chosen.weights)),
            (f"{chosen.synthetic} synthetic", synthetic(chosen.synthetic)),
        ):
            row = compared(name, grams, Path(scratch))
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def of_pictures(count: int, weights: str) -> Iterator[np.ndarray]:
    """The joined Gram matrices of drawn pictures: gratings of random direction, pitch and colors, with noise."""
    from gramlet.feature.types import Extraction, Form, GramNormalization
    from gramlet_server.backbone import load_network
    from gramlet_server.feature.engine import Engine

    engine = Engine(load_network("resnet50", weights, "cpu"))
    extraction = Extraction(tuple(CHANNELS), (Form.GRAM,), GramNormalization.POSITIONS)
    try:
        for features in engine.extract((drawn(seed) for seed in range(count)), extraction):
            yield np.concatenate([features.grams[stage].ravel() for stage in CHANNELS])
    finally:
        engine.close()


def drawn(seed: int) -> np.ndarray:
    """A picture (SIDE, SIDE, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    angle, pitch, phase = random.uniform(0, np.pi), random.uniform(3, 24), random.uniform(0, 2 * np.pi)
    wave = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / pitch + phase)
    colors = random.uniform(0, 255, (2, 3))
    picture = wave[..., None] * colors[0] + (1 - wave[..., None]) * colors[1]
    return np.clip(picture + random.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def synthetic(count: int) -> Iterator[np.ndarray]:
    """Joined Gram matrices of activations that mix 12 factors in changing shares."""
    random = np.random.default_rng(0)
    factors = {stage: random.normal(size=(12, channels, 24)) for stage, channels in CHANNELS.items()}
    centers = random.normal(size=(20, 12))
    for number in range(count):
        shares = centers[number % len(centers)] + 0.5 * random.normal(size=12)
        mixed = {stage: np.tensordot(shares, factor, 1) for stage, factor in factors.items()}
        yield np.concatenate([(f @ f.T / f.shape[1]).ravel() for f in mixed.values()]).astype(np.float32)


def compared(name: str, grams: Iterator[np.ndarray], scratch: Path) -> dict[str, Any]:
    """One row: both ways on the same file."""
    from gramlet_server.embed.quality import judge

    file = scratch / "grams.f32"
    with file.open("wb") as out:
        for gram in grams:
            out.write(gram.astype(np.float32).tobytes())
    results = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--file", str(file)]
        results[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    squared = np.load(scratch / "squared.npy")
    row: dict[str, Any] = {"bench": "maps", "rows": name}
    for way, result in results.items():
        coordinates = np.load(scratch / f"{way}.npy").astype(np.float64)
        trustworthiness = judge(squared, coordinates, [""] * len(squared), 10).trustworthiness
        row[way] = {**result, "trustworthiness": round(trustworthiness, 4)}
    direct, ours = row["direct"], row["gramlet"]
    row["times_faster"] = round(direct["seconds"] / ours["seconds"], 2)
    row["times_less_cpu"] = round(direct["cpu_seconds"] / ours["cpu_seconds"], 2)
    row["times_less_memory"] = round(direct["peak_mib"] / ours["peak_mib"], 2)
    row["trustworthiness_gained"] = round(ours["trustworthiness"] - direct["trustworthiness"], 4)
    return row


def measured(way: str, file: Path) -> dict[str, Any]:
    """Runs one way in this process."""
    run = WAYS[way]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    began, worked = time.perf_counter(), time.process_time()
    coordinates = run(file)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    peak = memory("VmHWM") - before
    np.save(file.with_name(f"{way}.npy"), coordinates)
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), "peak_mib": round(peak / 1024, 1)}


def memory(name: str) -> int:
    """A line of /proc/self/status, in KiB: VmRSS is held now, VmHWM the most ever."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def rows_of(file: Path) -> Iterator[np.ndarray]:
    """The joined Gram matrices, one a picture."""
    with file.open("rb") as source:
        while row := source.read(4 * ELEMENTS):
            yield np.frombuffer(row, np.float32)


def direct() -> Any:
    """The direct way, imported and ready."""
    from sklearn.manifold import TSNE

    def run(file: Path) -> np.ndarray:
        rows = file.stat().st_size // (4 * ELEMENTS)
        matrix = np.empty((rows, ELEMENTS), np.float32)
        for number, row in enumerate(rows_of(file)):
            matrix[number] = row
        return TSNE(init="pca", random_state=0).fit_transform(matrix)

    return run


def gramlet() -> Any:
    """EmbedService's way, imported and ready."""
    from gramlet.embed.settings import MapSettings
    from gramlet.feature.types import Features
    from gramlet_server.embed import project
    from gramlet_server.embed.descriptors import Describer
    from gramlet_server.embed.distances import Budget, Measurer

    def run(file: Path) -> np.ndarray:
        settings = MapSettings(stages=tuple(CHANNELS), balance_stages=False)  # what the direct way compares
        describer = Describer(settings)
        with Measurer(file.stat().st_size // (4 * ELEMENTS), settings, Budget(scratch=file.parent)) as measurer:
            for row in rows_of(file):
                measurer.add(describer.of_features(Features({}, split(row), {}, SIDE, SIDE)))
            squared = measurer.measure().squared
        np.save(file.with_name("squared.npy"), squared)
        *_, last = project.layouts(squared, settings)
        return last.coordinates

    return run


def split(row: np.ndarray) -> dict[str, np.ndarray]:
    """The Gram matrices of a row, by stage."""
    grams, start = {}, 0
    for stage, channels in CHANNELS.items():
        grams[stage] = row[start : start + channels**2].reshape(channels, channels)
        start += channels**2
    return grams


WAYS = {"direct": direct, "gramlet": gramlet}

if __name__ == "__main__":
    main()
