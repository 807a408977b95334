"""Stylization beside a direct transcription of the slides, alternating in one run: seconds an iteration, and loss.

The direct loop is torchvision's network under torch's L-BFGS, in this process. gramlet is asked through the SDK: as one
server with everything in it, and as a StylizeService before a FeatureService. Peers run if they are installed: pystiche
with the same network and losses; neural-style, which knows no residual network, with VGG-16 beside gramlet's VGG-16.

    python tests/bench/bench_stylize.py [--sizes 256,512] [--iterations 10] [--rounds 3] [--ways direct,three,...]
        [--device cuda]

Ratios are taken round by round, of contenders that ran one after the other; the median of the rounds counts. Each round
starts from a picture that differs by less than a 255th of a level, for the loss where a long descent ends: L-BFGS
without a line search makes much of any rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Client
from gramlet.stylize.types import Iteration
from gramlet_server.pictures.encode import encode_png, to_uint8
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.e2e.cluster import Cluster
from tests.stylize.direct import STAGES, classic_loss, torchvision_resnet50

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = Path(os.environ.get("GRAMLET_TEST_WEIGHTS") or SHARED / "weights/resnet50.safetensors")
SAMPLES = Path(os.environ.get("GRAMLET_TEST_SAMPLES") or SHARED / "samples")
VGG16_WEIGHTS = Path(os.environ.get("GRAMLET_TEST_VGG16_WEIGHTS") or SHARED / "weights/vgg16_features.safetensors")
WAYS = ("direct", "pystiche", "one", "three", "one bfloat16", "three bfloat16", "one mixed")
HISTORY = 100  # torch's default, which the slides' loop has
SKIPPED = 2  # iterations at the start of a run that are not counted
JITTER = 1e-6  # standard deviation of what is added to the content in all rounds but the first
NEURAL_STYLE = """
from runpy import run_module
from gramlet_server.backbone.torchvision_cpu import import_torchvision

import_torchvision()
run_module("neural_style.neural_style", run_name="__main__")
"""

Run = Callable[[np.ndarray, np.ndarray, int], tuple[list[float], list[float]]]
"""From content, style and iterations: seconds of each iteration, and the loss it stepped from."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Runs the rows, prints each, and returns them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=150.0, help="seconds a size after which no round begins")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--device", default="cpu", help="of gramlet, of the direct loop, and of peers")
    chosen = parser.parse_args(arguments)
    torch.set_default_device(chosen.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        runs = {way: run for way in chosen.ways.split(",") if (run := prepared(way, cluster)) is not None}
        for size in map(int, chosen.sizes.split(",")):
            rows += compared(runs, size, chosen.iterations, chosen.rounds, chosen.limit)
    return rows


def compared(runs: dict[str, Run], size: int, iterations: int, rounds: int, limit: float) -> list[dict[str, Any]]:
    """One row a way, at one size."""
    content, style = (picture(SAMPLES / name, size) for name in ("content/tubingen.jpg", "style/starry_night.jpg"))
    seconds: dict[str, list[float]] = {way: [] for way in runs}  # a median a round
    lasts: dict[str, list[float]] = {way: [] for way in runs}
    began = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - began > limit:
            break
        noise = np.random.default_rng(number).normal(0, JITTER if number else 0, content.shape).astype(np.float32)
        start = (content + noise).clip(0, 1)
        for way, run in runs.items():
            took, losses = run(start, style, iterations)
            seconds[way].append(statistics.median(took[SKIPPED:]))
            lasts[way].append(losses[iterations - 1])
            done = f"{size} px, {way}: {seconds[way][-1]:.3f} s an iteration, to a loss of {lasts[way][-1]:.5g}"
            print(done, file=sys.stderr, flush=True)
    base = next(iter(runs))
    rows = []
    for way in runs:
        ratios = [theirs / ours for theirs, ours in zip(seconds[base], seconds[way], strict=True)]
        row: dict[str, Any] = {"bench": "stylize", "size": size, "way": way, "iterations": iterations}
        row["seconds_per_iteration"] = round(statistics.median(seconds[way]), 4)
        row[f"times_{base}"] = round(statistics.median(ratios), 2)
        row["of_rounds"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
        if not base.startswith("neural-style"):  # its losses are others
            over = [ours / theirs for ours, theirs in zip(lasts[way], lasts[base], strict=True)]
            row["last_loss_over_direct"] = round(statistics.median(over), 5)
            row["over_of_rounds"] = f"{min(over):.4f} to {max(over):.4f}"
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def picture(path: Path, size: int) -> np.ndarray:
    """(3, size, size) in 0..1."""
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGB").resize((size, size)), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / 255)


def prepared(way: str, cluster: Cluster) -> Run | None:
    """A way, ready to run; None if it cannot."""
    name, _, precision = way.partition(" ")
    if name == "direct":
        return direct(compiles=precision == "compiled")
    if name == "pystiche":
        return pystiche()
    if name == "neural-style":
        return neural_style(cluster.folder)
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "GRAMLET_DEVICE": str(torch.get_default_device())}
    store, network = (
        f"--store={cluster.folder / 'store'}",
        (f"--weights={WEIGHTS}", f"--precision={precision or 'float32'}"),
    )
    if name == "vgg16":
        name, network = "one", ("--backbone=vgg16", f"--weights={VGG16_WEIGHTS}", *network[1:])
    if name == "one":
        server = cluster.server("feature", "stylize", store, *network, environment=threads)
    else:
        features = cluster.server("feature", *network, environment=threads)
        server = cluster.server("stylize", store, f"--features={features.address}", environment=threads)
        features.wait_until_ready()
    server.wait_until_ready()
    return gramlet(server.address)


def gramlet(address: str) -> Run:
    """Through the SDK."""
    client = Client(address)

    def run(content: np.ndarray, style: np.ndarray, iterations: int) -> tuple[list[float], list[float]]:
        times, losses = [time.perf_counter()], []
        for event in client.stylize(content, style, preset="classic", size=content.shape[2], iterations=iterations):
            if isinstance(event, Iteration):
                times.append(time.perf_counter())
                losses.append(event.loss)
        return np.diff(times).tolist(), losses

    return run


def lbfgs(loss: Callable[[torch.Tensor], torch.Tensor], content: torch.Tensor, iterations: int) -> Any:
    """Times and losses of one long run of torch's L-BFGS."""
    image = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], max_iter=iterations, history_size=HISTORY, tolerance_grad=0, tolerance_change=0
    )
    times, losses = [time.perf_counter()], []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(image)
        value.backward()  # type: ignore[no-untyped-call]
        losses.append(float(value.detach()))
        times.append(time.perf_counter())
        return value

    optimizer.step(closure)
    return np.diff(times).tolist(), losses


def direct(compiles: bool = False) -> Run:
    """torchvision's network and the formulas, as they stand on the slides; or these through torch.compile."""
    network = torchvision_resnet50(WEIGHTS)

    def run(content: np.ndarray, style: np.ndarray, iterations: int) -> tuple[list[float], list[float]]:
        start = torch.tensor(content)
        loss = classic_loss(network, start, torch.tensor(style))
        result: tuple[list[float], list[float]] = lbfgs(torch.compile(loss) if compiles else loss, start, iterations)
        return result

    return run


def pystiche() -> Run | None:
    """The same network and losses made of pystiche's encoders and losses (from PyPI)."""
    network = torchvision_resnet50(WEIGHTS)
    try:
        # It looks for the addresses of weights, which are not needed, where torchvision had them in its time.
        for models in ("alexnet", "vgg"):
            vars(import_module(f"torchvision.models.{models}"))["model_urls"] = defaultdict(str)
        from pystiche import enc, loss
    except ImportError as error:
        print(f"pystiche does not run here: {error}", file=sys.stderr)
        return None
    modules = [("conv1", network.conv1), ("bn1", network.bn1), ("relu", torch.nn.ReLU()), ("maxpool", network.maxpool)]
    modules += [(f"layer{n}", getattr(network, f"layer{n}")) for n in (1, 2, 3, 4)]

    class Normalized(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
            return (x - mean) / deviation

    encoder = enc.MultiLayerEncoder([("normalized", Normalized()), *modules])

    def run(content: np.ndarray, style: np.ndarray, iterations: int) -> tuple[list[float], list[float]]:
        start, wanted = torch.tensor(content)[None], torch.tensor(style)[None]
        content_loss = loss.FeatureReconstructionLoss(encoder.extract_encoder("layer3"))
        style_losses = loss.MultiLayerEncodingLoss(
            encoder,
            list(STAGES),
            lambda e, weight: loss.GramLoss(e, normalize=False, score_weight=weight),
            layer_weights=[1 / n**2 for n in STAGES.values()],
            score_weight=1000,
        )
        criterion = loss.PerceptualLoss(content_loss, style_losses)
        criterion.set_content_image(start)
        criterion.set_style_image(wanted)
        result: tuple[list[float], list[float]] = lbfgs(lambda x: sum(criterion(x).values()), start, iterations)
        return result

    return run


def neural_style(folder: Path) -> Run | None:
    """The command of neural-style (from PyPI), a process of its own, timed by what it prints."""
    try:
        import_module("neural_style")
    except ImportError as error:
        print(f"neural-style does not run here: {error}", file=sys.stderr)
        return None
    weights = folder / "vgg16.pth"
    torch.save(load_file(VGG16_WEIGHTS), weights)

    def run(content: np.ndarray, style: np.ndarray, iterations: int) -> tuple[list[float], list[float]]:
        files = [folder / name for name in ("content.png", "style.png")]
        for file, pixels in zip(files, (content, style), strict=True):
            file.write_bytes(encode_png(to_uint8(pixels)))
        options = {
            "model_file": weights,
            "content_image": files[0],
            "style_image": files[1],
            "output_image": folder / "neural_style.png",
            "image_size": content.shape[2],
            "num_iterations": iterations,
            "lbfgs_num_correction": HISTORY,
            "gpu": "c" if torch.get_default_device().type == "cpu" else "0",
            "init": "image",
            "tv_weight": 0,
            "print_iter": 1,
            "save_iter": 0,
        }
        flags = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
        command = [sys.executable, "-u", "-c", NEURAL_STYLE, "-disable_check", *flags]
        times, losses = [], []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                if "Total loss" in line:
                    times.append(time.perf_counter())
                    losses.append(float(line.rpartition(":")[2]))
        if process.returncode:
            raise RuntimeError(f"neural-style ended with {process.returncode}")
        return np.diff(times).tolist(), losses

    return run


if __name__ == "__main__":
    main()
