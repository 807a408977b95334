"""The network in this process: puts the parts of FeatureService together, and is a `FeatureSource` for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
from gramlet.errors import GramletError
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.see_types import SeeStart
from gramlet.feature.types import Extraction, Features, Load, Model, Objective
from gramlet.types import Limits, Picture

from gramlet_server import __version__
from gramlet_server.backbone.network import Network
from gramlet_server.feature.cache import FeatureCache
from gramlet_server.feature.descents import DescentLimits, Descents, LocalDescent
from gramlet_server.feature.device import Device, device_for
from gramlet_server.feature.device_decode import DeviceDecoder
from gramlet_server.feature.differentiation import Differentiator, LocalDifferentiation
from gramlet_server.feature.extraction import Extractor, Outcome
from gramlet_server.feature.memory import pass_bytes
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.scheduler import Scheduler
from gramlet_server.feature.seeing import Seeing, Seer
from gramlet_server.feature.targets import TargetBuilder
from gramlet_server.feature.work import Batching, Work, outcome
from gramlet_server.feature_source import check_weights
from gramlet_server.pictures.workers import Decoder, LocalDecoder
from gramlet_server.telemetry import Observer


@dataclass(frozen=True)
class EngineSettings:
    """How the engine uses its device.

    Attributes:
        batching: Limits of a device pass and of the queue; 0: those that suit the device.
        batch_gradients: Let stylizations of one size share passes. Off by default: the last bits of a convolution
            may depend on the batch size, and a stylization must not depend on who else is served.
        cache_bytes: Memory for target activations and Gram matrices, shared by all stylizations.
        tile_pixels: A larger picture is differentiated tile by tile, each of at most so many pixels, halo included; 0:
            2 mebipixels, or as many as the memory has room for. The result is the same except for rounding. Memory is
            that of one tile; time grows by the halos and by a second forward pass.
        cuda_graphs: On a CUDA device, record passes that repeat, and replay them.
        feature_cache_bytes: Memory for features of pictures that may be asked for again; 0: none are kept.
        descents: How many descents run and wait.
    """

    batching: Batching = field(default_factory=lambda: Batching(pictures=0, pixels=0, queue_limit=0))
    batch_gradients: bool = False
    cache_bytes: int = 512 * 1024 * 1024
    tile_pixels: int = 0
    cuda_graphs: bool = True
    feature_cache_bytes: int = 64 * 1024 * 1024
    descents: DescentLimits = field(default_factory=DescentLimits)


class Engine:
    """Owns the network and its device.

    Args:
        network: The network.
        settings: How to use the device.
        limits: The largest pictures and messages that are accepted.
        observer: Receives what happens, for metrics.
        device: Runs the passes; by default the one of the network.
        decoder: Decodes files; by default on the threads that need them. `close` does not close it.

    Attributes:
        network: The network.
        passes: What all work on the network goes through.
        decoder: Decodes files in this process or its workers. Features are extracted of pictures that the device
            decodes, if the network says so (`Network.pixels`).
        extractor: Extracts features.
        targets: Computes the targets of objectives.
        differentiator: Evaluates objectives.
        descents: Descends on objectives.
        seer: Shows what channels respond to.
        feature_cache: Features that were extracted before.
    """

    def __init__(
        self,
        network: Network,
        settings: EngineSettings | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        device: Device | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        settings, observer = settings or EngineSettings(), observer or Observer()
        self.network = network
        device = device or device_for(network.device, settings.cuda_graphs)
        batching = settings.batching.completed(device.batching(pass_bytes(network.architecture)))
        self.passes = Passes(
            network,
            device,
            Scheduler(batching, observer.queue_length, observer.batch),
            limits or Limits(),
            settings.tile_pixels,
        )
        self.feature_cache = FeatureCache(settings.feature_cache_bytes, observer)
        self.decoder = decoder or LocalDecoder(self.passes.limits)
        self._device_decoder = self._decoder_on_device() if network.pixels else None
        self.extractor = Extractor(self.passes, self.feature_cache, self._device_decoder or self.decoder)
        self.targets = TargetBuilder(self.passes, settings.cache_bytes, observer)
        self.differentiator = Differentiator(self.passes, self.targets, settings.batch_gradients)
        self.descents = Descents(self.passes, self.targets, self.differentiator, settings.descents, observer)
        self.seer = Seer(self.passes, self.decoder, self.descents.queue)
        observer.backlog(lambda: self.backlog_seconds)

    def _decoder_on_device(self) -> DeviceDecoder:
        return DeviceDecoder(self.passes.device.jpeg_codec(), self.decoder, self.passes.limits)

    @property
    def address(self) -> str:
        """Where the network is."""
        return "in-process"

    def pinned(self, weights_digest: str) -> Engine:
        """This engine, if its network has these weights.

        Raises:
            OtherWeights: It has others.
        """
        check_weights(weights_digest, self.network.digest)
        return self

    def model(self) -> Model:
        """The network, its limits, and how busy it is."""
        network, scheduler, queue = self.network, self.passes.scheduler, self.descents.queue
        return Model(
            backbone=network.name,
            weights_digest=network.digest,
            weights_source=network.weights.source,
            device=str(network.device),
            precision=network.precision.value,
            stages=network.stages,
            limits=self.passes.limits,
            load=Load(
                queued=scheduler.queued,
                queue_limit=scheduler.queue_limit,
                callers=scheduler.callers,
                device_seconds=scheduler.device_seconds,
                descents_running=queue.running,
                descents_limit=queue.running_limit,
                descents_queued=queue.queued,
                descent_queue_limit=queue.queue_limit,
                backlog_seconds=self.backlog_seconds,
            ),
            server_version=__version__,
        )

    @property
    def backlog_seconds(self) -> float:
        """Estimate of the time that the device needs for everything that it has accepted."""
        long_work = self.descents.backlog_seconds + self.seer.backlog_seconds
        return self.passes.scheduler.backlog_seconds + long_work

    def extract(
        self, pictures: Iterable[Picture | GramletError], extraction: Extraction
    ) -> Iterator[Features | GramletError]:
        """Features of each picture, in order; see `Extractor.stream`."""
        for outcomes in self.extractor.stream(([picture] for picture in pictures), extraction):
            yield from outcomes

    def extract_together(self, pictures: Sequence[Picture | GramletError], extraction: Extraction) -> list[Outcome]:
        """Features of a few pictures whose outcomes fit one message; see `Extractor.together`."""
        return self.extractor.together(pictures, extraction)

    @contextmanager
    def differentiate(self, objective: Objective) -> Iterator[LocalDifferentiation]:
        """Opens a differentiation of an objective.

        Raises:
            InvalidInput: Naming the field of the objective.
            Overloaded: The device's queue is full.
        """
        with self.differentiation() as differentiation:
            differentiation.replace(objective)
            yield differentiation

    def differentiation(self) -> AbstractContextManager[LocalDifferentiation]:
        """Opens a differentiation whose first objective is still to be set; see `Differentiator.open`."""
        return self.differentiator.open()

    def descend(self, start: DescentStart) -> LocalDescent:
        """Opens a descent; see `Descents.open`."""
        return self.descents.open(start)

    def see(self, start: SeeStart) -> Seeing:
        """Begins to show what channels respond to; see `Seer.open`."""
        return self.seer.open(start)

    def warm_up(self) -> None:
        """Runs the network once forward and backward, so that the first caller does not pay for lazy initialization."""
        picture = np.full((3, 64, 64), 0.5, np.float32)
        objective = Objective(picture, self.network.stages[-1].name, 1.0)
        with self.passes.scheduler.caller() as caller:
            targets = self.targets.build(caller, objective)
            work = Work("warm-up", None, picture[0].size, self.differentiator.evaluate_batch, (picture, targets))
            outcome(caller.submit(work))

    def on_failure(self, report: Callable[[GramletError], None]) -> None:
        """Registers what to call, once, when the device has failed for good."""
        self.passes.on_failure(report)

    def drain(self) -> None:
        """Sends descents and differentiations to other servers: they fail with Unavailable. Extractions finish."""
        self.differentiator.drain()
        self.descents.drain()
        self.seer.drain()

    def close(self) -> None:
        """Ends the running pass and rejects all work that still waits."""
        if self._device_decoder:
            self._device_decoder.close()
        self.passes.scheduler.close()
