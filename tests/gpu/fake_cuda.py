"""A CUDA device whose memory is the CPU's: `check.sh --dry-run` runs the tests of this folder on it.

It records and replays, reads losses late, and spoils the results of a replay when another graph is replayed, as CUDA
does. It cannot show what only CUDA does wrong: orders of kernels, memory, waiting.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import simplejpeg
import torch
from gramlet_server.feature import graphs
from gramlet_server.feature.device import CUDA_BATCHING, AnyPicture, CudaDevice, Device, Wait
from gramlet_server.feature.device_decode import JpegCodec
from gramlet_server.feature.graphs import ComputeWith, Graph, GraphCache
from gramlet_server.feature.work import Batching
from numpy.typing import NDArray
from torch import Tensor

_results: weakref.WeakSet[Tensor] = weakref.WeakSet()
_pools = count()


class FakeCudaDevice(CudaDevice):
    """Everything of a CudaDevice but CUDA."""

    def __init__(self, records: bool) -> None:
        graphs.record_graph = _record
        torch.cuda.graph_pool_handle = lambda: (0, next(_pools))
        self.graphs = GraphCache(torch.device("cpu"), 2**30 if records else 0)

    @contextmanager
    def working(self) -> Iterator[None]:
        yield

    def batching(self, pixel_bytes: float) -> Batching:
        return CUDA_BATCHING

    def jpeg_codec(self) -> JpegCodec:
        return FakeNvJpeg()

    def upload(self, pictures: Sequence[AnyPicture]) -> Tensor:
        return Device.upload(self, pictures)

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        return Device._stack(self, arrays)

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def fetch(self, result: Tensor) -> Callable[[], Tensor]:
        fetched = result.clone()
        return lambda: fetched

    def is_lost(self) -> bool:
        return False

    def _keep_results(self) -> None:
        pass

    def _fetched(self, results: Iterable[Tensor]) -> Wait:
        arrays = [result.detach().float().numpy().copy() for result in results]
        return lambda: arrays


class FakeNvJpeg:
    """libjpeg-turbo in the place of nvJPEG: the same pixels as by default where nothing is resized."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Nothing to do."""
        yield

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """(3, H, W) uint8 each."""
        return [torch.from_numpy(simplejpeg.decode_jpeg(file)).permute(2, 0, 1) for file in files]


def _record(pictures: Tensor, inputs: tuple[Tensor, ...], compute: ComputeWith, pool: Any) -> Graph:
    results = [result.clone() for result in compute(pictures, inputs)]
    _results.update(results)

    def launch() -> None:
        with torch.inference_mode():  # results of extractions can be written to nowhere else
            for result in _results:
                result.fill_(float("nan"))
        computed = list(compute(pictures, inputs))
        with torch.inference_mode():
            for into, result in zip(results, computed, strict=True):
                into.copy_(result)

    return Graph(pictures, inputs, results, launch)
