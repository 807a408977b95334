"""The bare way from JPEG files to pooled features: torchvision's network, nothing around it. Peers serve just this."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.stylize.direct import torchvision_resnet50

SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = Path(os.environ.get("GRAMLET_TEST_WEIGHTS") or SHARED / "weights/resnet50.safetensors")
SAMPLES = Path(os.environ.get("GRAMLET_TEST_SAMPLES") or SHARED / "samples")
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def jpegs(count: int, side: int = 256) -> list[bytes]:
    """JPEG files of side x side pixels: the sample pictures, cut at different places, all different."""
    random = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*/*.jpg"))[:6]]
    sources = [each.resize((max(each.width, side), max(each.height, side))) for each in sources]
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(random.integers(0, length - side + 1)) for length in source.size)
        file = io.BytesIO()
        comment = str(number).encode()
        source.crop((left, top, left + side, top + side)).save(file, "JPEG", quality=90, comment=comment)
        files.append(file.getvalue())
    return files


def decoded(file: bytes, size: int = 224) -> torch.Tensor:
    """(3, size, size), normalized: the center square, antialiased."""
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / DEVIATION  # (size, size, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


class Embedder:
    """torchvision's ResNet-50 up to its pooled features, on torch's default device.

    Args:
        channels_last: How the weights lie in memory, and the pictures with them.
    """

    def __init__(self, channels_last: bool = True) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self._device = torch.get_default_device()
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._network: Any = torchvision_resnet50(WEIGHTS).to(self._device, memory_format=self._format)
        self._pool = ThreadPoolExecutor(os.cpu_count())

    @torch.inference_mode()
    def embed(self, pictures: Sequence[torch.Tensor]) -> np.ndarray:
        """(N, 2048)."""
        n = self._network
        x = torch.stack(list(pictures)).to(self._device, memory_format=self._format)
        x = n.maxpool(torch.relu_(n.bn1(n.conv1(x))))
        pooled: np.ndarray = n.avgpool(n.layer4(n.layer3(n.layer2(n.layer1(x))))).flatten(1).cpu().numpy()
        return pooled

    def embed_files(self, files: Iterable[bytes], size: int = 224) -> np.ndarray:
        """The same from JPEG files, decoded on all cores."""
        return self.embed(list(self._pool.map(lambda file: decoded(file, size), files)))

    def embed_all(self, files: Sequence[bytes], batch: int, size: int = 224) -> None:
        """Many files in batches, decoded ahead on all cores; one by one where the batch is 1."""
        pictures = self._pool.map(lambda f: decoded(f, size), files) if batch > 1 else (decoded(f, size) for f in files)
        waiting: list[torch.Tensor] = []
        for picture in pictures:
            waiting.append(picture)
            if len(waiting) == batch:
                self.embed(waiting)
                waiting = []
        if waiting:
            self.embed(waiting)
