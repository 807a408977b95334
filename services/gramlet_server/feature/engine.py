"""The network at work: the one owner of the device, and the FeatureSource of its own process."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from gramlet.errors import GramletError, InvalidInput, Unavailable
from gramlet.feature.types import (
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Load,
    Model,
    Objective,
    find_stage,
)
from gramlet.tensor.hashing import picture_hash
from gramlet.types import Array, Limits, Picture, Resize, Timing
from torch import Tensor

from gramlet_server import __version__
from gramlet_server.backbone.network import Network
from gramlet_server.feature import objective as objectives
from gramlet_server.feature.cache import Cache, Compute, FeatureCache, cached_stages
from gramlet_server.feature.device import Repeats, device_of
from gramlet_server.feature.gram import Region, divisor, gram_matrix, region_at
from gramlet_server.feature.objective import Reading, Targets
from gramlet_server.feature.scheduler import Batching, Caller, Scheduler, Work, outcome
from gramlet_server.feature.tiles import Tile, TiledEvaluation, TiledReading, cut
from gramlet_server.pictures.masks import region
from gramlet_server.pictures.prepare import prepare
from gramlet_server.telemetry import Observer

DECODERS = min(8, os.cpu_count() or 1)
"""Threads in which the pictures of one call are decoded."""

Outcome = Features | GramletError
Pending = Outcome | tuple[Hashable, Work]
"""What is known at once, or what the device is asked for and the key under which it is kept."""
T = TypeVar("T")

TILE_PIXELS = 2 * 2**20
EXTRACT_PIXELS = 4096 * 2304
"""Features are extracted from whole pictures, whose activations must fit into memory."""


@dataclass(frozen=True)
class EngineSettings:
    """How the engine uses its device.

    Attributes:
        batching: Bounds of a device pass and of the queue.
        batch_gradients: Let stylizations of one size share passes. Off by default: the last bits of a convolution
            may depend on the batch size, and a stylization must not depend on who else is served.
        cache_bytes: Memory for target activations and Gram matrices, shared by all stylizations.
        tile_pixels: A larger picture is differentiated tile by tile, each of at most so many pixels, halo included. The
            result is the same but for rounding; memory is that of a tile, and time grows by the halos and by a second
            forward pass.
        cuda_graphs: On a CUDA device, record passes that repeat, and replay them.
        feature_cache_bytes: Memory for features of pictures, which are not computed again; 0: they are.
        simulated_seconds_per_picture: For tests of scaling: every pass takes at least this long a picture.
    """

    batching: Batching = field(default_factory=Batching)
    batch_gradients: bool = False
    cache_bytes: int = 512 * 1024 * 1024
    tile_pixels: int = TILE_PIXELS
    cuda_graphs: bool = True
    feature_cache_bytes: int = 64 * 1024 * 1024
    simulated_seconds_per_picture: float = 0.0


class Engine:
    """Owns the device. Everything that runs the network goes through its scheduler, one pass at a time."""

    def __init__(
        self,
        network: Network,
        settings: EngineSettings | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._network = network
        self._settings = settings or EngineSettings()
        self._device = device_of(network.device, self._settings.cuda_graphs)
        self._limits = limits or Limits()
        observer = observer or Observer()
        self._cache: Cache[Tensor] = Cache("targets", self._settings.cache_bytes, observer, lambda kept: kept.nbytes)
        self._kept = FeatureCache(self._settings.feature_cache_bytes, observer)
        self._scheduler = Scheduler(self._settings.batching, observer.queue_length, observer.batch)
        self._draining = False
        self._failure = ""
        self._when_failed: Callable[[GramletError], None] = lambda _: None

    @property
    def address(self) -> str:
        """Where the network is."""
        return "in-process"

    def model(self) -> Model:
        """The network, its limits, and how busy it is."""
        scheduler = self._scheduler
        return Model(
            backbone=self._network.name,
            weights_digest=self._network.digest,
            weights_source=self._network.weights.source,
            device=str(self._network.device),
            precision=self._network.precision.value,
            stages=self._network.stages,
            limits=self._limits,
            load=Load(
                queued=scheduler.queued,
                queue_limit=self._settings.batching.queue_limit,
                callers=scheduler.callers,
                device_seconds=scheduler.device_seconds,
            ),
            server_version=__version__,
        )

    def warm_up(self) -> None:
        """Runs the network once forward and backward, so that the first caller does not pay for what is lazy in it."""
        picture = np.full((3, 64, 64), 0.5, np.float32)
        last = self._network.stages[-1].name
        targets = objectives.place(Objective(picture, last, 1.0), _Reader(self))
        self._gradients([(picture, targets)])

    def tell_failure(self, tell: Callable[[GramletError], None]) -> None:
        """Has somebody told, once, when the device has failed for good. From then on every pass fails the same way."""
        self._when_failed = tell

    def close(self) -> None:
        """Ends the pass under way and refuses all others."""
        self._scheduler.close()

    # --- features ---

    def extract(
        self, pictures: Iterable[Picture | GramletError], extraction: Extraction
    ) -> Iterator[Features | GramletError]:
        """Features of each picture, in order; a picture that fails yields its error.

        Pictures are taken in a thread of their own, up to two passes ahead of what was consumed, and decoded in
        several; an outcome is yielded as soon as it is there, however slowly pictures come. An element that is already
        an error is passed through in its place. Features that are still known of the same picture are neither decoded
        nor computed; their timing is of a batch of none.

        Raises:
            InvalidInput: The extraction itself is wrong.
            Overloaded: The device's queue is full.
        """
        self._check(extraction)
        with self._scheduler.caller() as caller:
            ahead = _Ahead(2 * self._settings.batching.pictures)
            for pending in ahead.map(lambda picture: self._begin(caller, picture, extraction), pictures):
                yield self._outcome(pending)

    def extract_together(self, pictures: Sequence[Picture | GramletError], extraction: Extraction) -> list[Outcome]:
        """Features of a few pictures whose outcomes fit one message.

        Raises:
            InvalidInput: The extraction is wrong, or there are too many pictures, or the outcomes are too large.
            Overloaded: The device's queue is full. Nothing was done.
        """
        self._check(extraction)
        most = self._limits.pictures_per_extract
        if len(pictures) > most:
            raise InvalidInput(f"{len(pictures)} pictures; at most {most} a call: use ExtractStream", field="pictures")
        keys = [self._kept.key(picture, extraction) for picture in pictures]
        known = [self._kept.get(key) for key in keys]
        with self._scheduler.caller(known.count(None)) as caller:
            prepared = self._prepare_together(pictures, known, extraction.resize)
            size = sum(self._outcome_bytes(each, extraction) for each in prepared if not isinstance(each, GramletError))
            if size > self._limits.message_bytes:
                raise InvalidInput(
                    f"the features take {size:,} bytes and a message {self._limits.message_bytes:,}: ask for fewer "
                    "stages, Gram matrices or pooled features, send fewer pictures, or use ExtractStream",
                    field="pictures",
                )
            pending = [self._pending(*each, extraction) for each in zip(keys, prepared, strict=True)]
            caller.submit_together([each[1] for each in pending if isinstance(each, tuple)])
            return [self._outcome(each) for each in pending]

    def _check(self, extraction: Extraction) -> None:
        if not extraction.stages:
            raise InvalidInput("name at least one stage", field="extraction.stages")
        for index, stage in enumerate(extraction.stages):
            find_stage(stage, self._network.stages, self._network.name, f"extraction.stages[{index}]")

    def _prepare(self, picture: Picture | GramletError, resize: Resize) -> Array | GramletError:
        if isinstance(picture, GramletError):
            return picture
        try:
            return prepare(picture, resize, self._limits, "picture")
        except GramletError as error:
            return error

    def _prepare_together(
        self, pictures: Sequence[Picture | GramletError], known: Sequence[Features | None], resize: Resize
    ) -> list[Array | Outcome]:
        """Each picture as the network takes it, or its features where they are known."""

        def prepare(picture: Picture | GramletError, features: Features | None) -> Array | Outcome:
            return features or self._prepare(picture, resize)

        if len(pictures) == 1:
            return [prepare(pictures[0], known[0])]
        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            return list(pool.map(prepare, pictures, known))

    def _begin(self, caller: Caller, picture: Picture | GramletError, extraction: Extraction) -> Pending:
        key = self._kept.key(picture, extraction)
        pending = self._pending(key, self._kept.get(key) or self._prepare(picture, extraction.resize), extraction)
        if isinstance(pending, tuple):
            caller.submit(pending[1])
        return pending

    def _pending(self, key: Hashable, prepared: Array | Outcome, extraction: Extraction) -> Pending:
        if isinstance(prepared, GramletError):
            return prepared
        try:
            if not isinstance(prepared, Features):
                self._check_size(prepared, extraction.stages, "picture")
                _check_whole(prepared)
            size = self._outcome_bytes(prepared, extraction)
            if size > self._limits.message_bytes:
                raise InvalidInput(
                    f"its features take {size:,} bytes and a message {self._limits.message_bytes:,}: ask for fewer "
                    "stages, for Gram matrices or pooled features, or resize it",
                    field="picture",
                )
        except InvalidInput as error:
            return error
        if isinstance(prepared, Features):
            return prepared
        _, height, width = prepared.shape
        together = ("extract", height, width, extraction.stages, extraction.forms, extraction.gram_normalization)
        return key, Work("extract", together, height * width, self._extract_pass, (prepared, extraction))

    def _outcome(self, pending: Pending) -> Outcome:
        """Waits for a picture's features, and keeps them."""
        if not isinstance(pending, tuple):
            return pending
        key, work = pending
        try:
            features, timing = outcome(work.future)
        except Unavailable:
            raise  # not this picture's fault: the call goes on elsewhere
        except GramletError as error:
            return error
        return self._kept.put(key, replace(features, timing=timing))

    def _check_size(self, picture: Array, stages: Iterable[str], name: str) -> None:
        _, height, width = picture.shape
        for stage in stages:
            if 0 in self._network.architecture.activation_shape(stage, height, width):
                raise InvalidInput(
                    f"{width} x {height} pixels are too few for {stage} of {self._network.name}: resize it, or ask "
                    "for an earlier stage",
                    field=name,
                )

    def _outcome_bytes(self, picture: Array | Features, extraction: Extraction) -> int:
        """Size of the features of a picture on the wire, without what frames them."""
        height, width = (picture.height, picture.width) if isinstance(picture, Features) else picture.shape[1:]
        elements = 0
        for stage in extraction.stages:
            channels, rows, columns = self._network.architecture.activation_shape(stage, height, width)
            for form in extraction.forms:
                if form is Form.ACTIVATIONS:
                    elements += channels * rows * columns
                elif form is Form.GRAM:
                    elements += channels * (channels + 1) // 2 if extraction.triangle else channels**2
                else:
                    elements += channels
        return elements * (4 if extraction.element_type.value == "float32" else 2)

    def _extract_pass(self, batch: Sequence[tuple[Array, Extraction]]) -> list[Features]:
        extraction = batch[0][1]
        stages = [stage.name for stage in self._network.stages if stage.name in extraction.stages]

        def compute(pictures: Tensor) -> Iterator[Tensor]:
            for _, found in self._network.in_turn(pictures, stages):
                for activations in found:
                    for form in extraction.forms:
                        yield _form(activations, form, extraction.gram_normalization)

        repeats = Repeats(("extract", extraction.stages, extraction.forms, extraction.gram_normalization))
        with self._pass(len(batch)), torch.inference_mode():
            arrays = iter(self._device.run([picture for picture, _ in batch], compute, repeats))
        forms: list[dict[Form, dict[str, Array]]] = [{form: {} for form in Form} for _ in batch]
        for stage in stages:
            for of_picture in forms:
                for form in extraction.forms:
                    of_picture[form][stage] = next(arrays)
        _, height, width = batch[0][0].shape
        return [
            Features(each[Form.ACTIVATIONS], each[Form.GRAM], each[Form.POOLED], height=height, width=width)
            for each in forms
        ]

    # --- loss and gradient ---

    @contextmanager
    def differentiate(self, objective: Objective) -> Iterator[LocalDifferentiation]:
        """Puts an objective in place for as long as the context lasts.

        Raises:
            InvalidInput: Naming the field of the objective.
            Overloaded: The device's queue is full.
        """
        with self.differentiation() as differentiation:
            differentiation.replace(objective)
            yield differentiation

    @contextmanager
    def differentiation(self) -> Iterator[LocalDifferentiation]:
        """The same before its first objective is known.

        Raises:
            Overloaded: The device's queue is full.
        """
        with self._scheduler.caller() as caller:
            yield LocalDifferentiation(self, caller)

    def load_picture(self, picture: Picture, field: str) -> Array:
        """A picture as (3, H, W) float32, within the limits.

        Raises:
            InvalidInput: It is no picture, or too large.
        """
        return prepare(picture, Resize(), self._limits, field)

    def load_region(self, mask: Picture, field: str) -> Array:
        """A mask as (H, W) float32 in 0..1, within the limits.

        Raises:
            InvalidInput: It is no picture, or too large, or nothing is inside.
        """
        return region(mask, self._limits, field)

    def drain(self) -> None:
        """Sends differentiations elsewhere: their next evaluation fails with Unavailable. Extractions are finished."""
        self._draining = True

    def _place(self, caller: Caller, objective: Objective) -> Targets:
        objectives.check(objective, self.model())
        if objective.antialiased and not self._network.can_antialias:
            raise InvalidInput(f"{self._network.name} has no strides to antialias", field="antialiased")
        stages = [*objective.style_stages, *([objective.content_stage] if objective.content_weight else [])]
        pictures = [("content", objective.content, stages)]
        pictures += [
            (f"styles[{i}].picture", s.picture, list(objective.style_stages)) for i, s in enumerate(objective.styles)
        ]
        for name, picture, stages in pictures:
            if picture is not None:
                self._check_size(picture, stages, name)
        objective, _ = objectives.fitted(objective)
        reader = _Reader(self)
        small = [picture for _, picture, _ in pictures if picture is not None and not self._is_tiled(picture)]
        reader.read_ahead([r for r in objectives.readings(objective) if self._is_tiled(r.picture)], objective, caller)
        pixels = max(1, sum(picture[0].size for picture in small))
        targets: Targets
        targets, _ = self._alone(caller, "targets", pixels, lambda: objectives.place(objective, reader))
        return targets

    def _is_tiled(self, picture: Array) -> bool:
        _, height, width = picture.shape
        return bool(height * width > self._settings.tile_pixels)

    def _tiles(self, picture: Array, stages: Sequence[str], antialiased: bool) -> list[Tile]:
        _, height, width = picture.shape
        if any(not self._network.architecture.stride(stage) for stage in stages):
            raise InvalidInput(
                f"{width} x {height} pixels are worked on in tiles, and {', '.join(stages)} has a stage that sees the "
                "whole picture: leave it out, or resize",
                field="style_stages",
            )
        limit = self._settings.tile_pixels
        return cut(self._network.architecture, height, width, stages, antialiased, limit)

    def _alone(self, caller: Caller, kind: str, pixels: int, work: Callable[[], T]) -> tuple[T, Timing]:
        """Does some work in a pass of its own."""

        def run(batch: Sequence[Any]) -> list[T]:
            with self._pass(1):
                return [self._device.with_room(work)]

        found: tuple[T, Timing] = outcome(caller.submit(Work(kind, None, pixels, run, None)))
        return found

    def _evaluate(self, caller: Caller, picture: Array, targets: Targets | None) -> Evaluation:
        if self._draining:
            raise Unavailable("this replica is shutting down: go on at another one", retry_after=0.0)
        if targets is None:
            raise InvalidInput("send an objective before the first picture", field="setup")
        _, height, width = picture.shape
        if targets.picture_shape not in (None, (height, width)):
            raise InvalidInput(f"the picture is {width} x {height}, the objective's is not", field="evaluate.picture")
        self._check_size(picture, targets.stages, "evaluate.picture")
        if self._is_tiled(picture) and targets.stages:
            return self._evaluate_in_tiles(caller, picture, targets)
        key = None
        if self._settings.batch_gradients:
            key = ("gradient", height, width, targets.stages, targets.antialiased, targets.reduced_precision)
        work = Work("gradient", key, height * width, self._gradients, (picture, targets))
        evaluation: Evaluation
        evaluation, timing = outcome(caller.submit(work))
        return replace(evaluation, timing=timing)

    def _evaluate_in_tiles(self, caller: Caller, picture: Array, targets: Targets) -> Evaluation:
        """Every tile is work of its own, so that others have their turn in between, and closing ends it."""
        tiles = self._tiles(picture, targets.stages, targets.antialiased)
        _, height, width = picture.shape
        timings: list[Timing] = []
        how = {"antialiased": targets.antialiased, "reduced": targets.reduced_precision}

        def work(pixels: int, what: Callable[[], T]) -> T:
            found, timing = self._alone(caller, "gradient", pixels, what)
            timings.append(timing)
            return found

        def read(tile: Tile) -> None:
            with torch.no_grad():
                state.read(tile, self._activations(tile.of(picture), list(targets.style), **how))

        def differentiate(tile: Tile) -> None:
            pixels = self._device.upload([tile.of(picture)]).requires_grad_()
            found = self._network.activations(pixels, targets.stages, smooth=True, **how)
            state.differentiate(tile, pixels, {stage: each.squeeze(0) for stage, each in found.items()})

        def finish() -> Evaluation:
            terms, gradient = state.evaluation(picture)
            return _evaluation(terms, targets, gradient.cpu().numpy())

        state = work(1, lambda: TiledEvaluation(targets, height, width, self._network.device))
        for tile in tiles if targets.style else ():
            work(tile.pixels, partial(read, tile))
        work(1, lambda: state.compare(tiles[0].shapes))
        for tile in tiles:
            work(tile.pixels, partial(differentiate, tile))
        evaluation = work(1, finish)
        queued, computed = sum(t.queue_seconds for t in timings), sum(t.compute_seconds for t in timings)
        return replace(evaluation, timing=Timing(queued, computed))

    def _activations(self, picture: Array, stages: Sequence[str], **how: bool) -> dict[str, Tensor]:
        """(C, H, W) of one picture, by stage. Used on the device thread."""
        found = self._network.activations(self._device.upload([picture]), stages, smooth=True, **how)
        return {stage: activations[0] for stage, activations in found.items()}

    def _gradients(self, batch: Sequence[tuple[Array, Targets]]) -> list[Evaluation]:
        each_targets = [targets for _, targets in batch]
        stages = dict.fromkeys(stage for targets in each_targets for stage in targets.stages)

        def compute(pictures: Tensor) -> Iterator[Tensor]:
            pictures = pictures.detach().requires_grad_()  # (N, 3, H, W)
            activations = self._network.activations(
                pictures,
                stages,
                antialiased=each_targets[0].antialiased,
                smooth=True,
                reduced=each_targets[0].reduced_precision,
            )
            each = {stage: _each(found) for stage, found in activations.items()}
            losses = [
                targets.losses(pictures[index], {stage: found[index] for stage, found in each.items()})
                for index, targets in enumerate(each_targets)
            ]
            # Each loss depends on its own picture alone, so the gradient of their sum holds the gradient of each.
            (gradients,) = torch.autograd.grad([loss.total for loss in losses], [pictures])
            # One transfer for all the scalars: each would wait for the device.
            yield torch.stack([term for loss in losses for term in loss.terms])
            yield gradients

        with self._pass(len(batch)):
            repeats = Repeats("gradient", owners=tuple(each_targets))
            terms, gradients = self._device.run([picture for picture, _ in batch], compute, repeats)
        rest = iter(terms.tolist())
        return [
            _evaluation(list(islice(rest, targets.term_count)), targets, gradient)
            for targets, gradient in zip(each_targets, gradients, strict=True)
        ]

    # --- the device ---

    @contextmanager
    def _pass(self, pictures: int) -> Iterator[None]:
        if self._failure:
            raise Unavailable(self._failure, retry_after=1.0)
        began = time.monotonic()
        try:
            with self._device.working():
                self._network.set_arithmetic()
                yield
        except torch.OutOfMemoryError:
            raise InvalidInput(
                f"the device's memory does not hold {pictures} such picture(s): resize, or ask for earlier stages",
                field="picture",
            ) from None
        except RuntimeError as error:
            if not self._device.is_lost():
                raise
            raise self._fail(error) from error
        rest = pictures * self._settings.simulated_seconds_per_picture - (time.monotonic() - began)
        if rest > 0:
            time.sleep(rest)

    def _fail(self, error: RuntimeError) -> Unavailable:
        reason = str(error).partition("\n")[0]
        self._failure = f"{self._network.device} has failed, go on at another server: {reason}"
        failure = Unavailable(self._failure, retry_after=1.0)
        self._when_failed(failure)
        return failure


class LocalDifferentiation:
    """An objective in place at the engine of this process. It is never lost."""

    reconnects = 0

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine = engine
        self._caller = caller
        self._targets: Targets | None = None

    def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W).

        Raises:
            InvalidInput: Its shape is not the content's.
            Cancelled: The differentiation was closed meanwhile.
        """
        return self._engine._evaluate(self._caller, picture, self._targets)

    def replace(self, objective: Objective) -> None:
        """Changes the objective from the next evaluation on."""
        self._targets = self._engine._place(self._caller, objective)

    def close(self) -> None:
        """Cancels an evaluation that waits for the device in another thread."""
        self._caller.close()


class _Reader:
    """Activations and Gram matrices through the cache. Used on the device thread, but for `read_ahead`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._network = engine._network
        self._cache = engine._cache
        # What was read ahead stays, even if the cache is too small for it.
        self._held: dict[Hashable, Tensor] = {}

    def activations(self, picture: Array, stage: str, antialiased: bool) -> Tensor:
        def compute(stages: list[str]) -> dict[str, Tensor]:
            found = self._run(picture, stages, antialiased)
            return {name: activations.float().contiguous() for name, activations in found.items()}

        return self._stages(_activations_key(picture, antialiased), [stage], compute)[stage]

    def grams(
        self,
        picture: Array,
        region: Array | None,
        stages: Sequence[str],
        normalization: GramNormalization,
        antialiased: bool,
    ) -> Mapping[str, Tensor]:
        def compute(missing: list[str]) -> dict[str, Tensor]:
            found = self._run(picture, missing, antialiased)
            at = {} if region is None else {name: self.region(region, name, antialiased)[0] for name in missing}
            return {name: gram_matrix(each, normalization, at.get(name)) for name, each in found.items()}

        return self._stages(_gram_key(picture, region, normalization, antialiased), stages, compute)

    def region(self, mask: Array, stage: str, antialiased: bool) -> tuple[Region, bool]:
        height, width = mask.shape
        _, rows, columns = self._network.architecture.activation_shape(stage, height, width, antialiased)
        return region_at(torch.tensor(mask, device=self._network.device), rows, columns)

    def finest(self, stages: Sequence[str]) -> str:
        return next(stage.name for stage in self._network.stages if stage.name in stages)

    def read_ahead(self, readings: Sequence[Reading], objective: Objective, caller: Caller) -> None:
        """Reads large pictures tile by tile, each once and every tile as work of its own. Used on a caller's thread."""
        by_picture: dict[int, list[Reading]] = {}
        for reading in readings:
            by_picture.setdefault(id(reading.picture), []).append(reading)
        for of_picture in by_picture.values():
            self._read_tiles(of_picture, objective.gram_normalization, objective.antialiased, caller)

    def _read_tiles(
        self, readings: Sequence[Reading], normalization: GramNormalization, antialiased: bool, caller: Caller
    ) -> None:
        picture = readings[0].picture
        of_activations = _activations_key(picture, antialiased)
        stages = self._unknown(of_activations, [stage for reading in readings for stage in reading.activations])
        grams: dict[tuple[Hashable, str], Array | None] = {}
        for reading in readings:
            key = _gram_key(picture, reading.region, normalization, antialiased)
            grams |= {(key, stage): reading.region for stage in self._unknown(key, reading.grams)}
        needed = list(dict.fromkeys([*stages, *(stage for _, stage in grams)]))
        if not needed:
            return

        def start() -> TiledReading:
            at = {
                (key, stage): None if mask is None else self.region(mask, stage, antialiased)[0]
                for (key, stage), mask in grams.items()
            }
            return TiledReading(stages, [(stage, at[key, stage]) for key, stage in grams])

        def read(tile: Tile) -> None:
            with torch.no_grad():
                state.read(tile, self._engine._activations(tile.of(picture), needed, antialiased=antialiased))

        def finish() -> None:
            for stage, activations in state.activations.items():
                self._keep((of_activations, stage), activations)
            for (key, stage), total in zip(grams, state.sums(), strict=True):
                height, width = tiles[0].shapes[stage]
                self._keep((key, stage), total / divisor(height * width, len(total), normalization))

        def work(pixels: int, what: Callable[[], T]) -> T:
            return self._engine._alone(caller, "targets", pixels, what)[0]

        tiles = self._engine._tiles(picture, needed, antialiased)
        state = work(1, start)
        for tile in tiles:
            work(tile.pixels, partial(read, tile))
        work(1, finish)

    def _keep(self, key: Hashable, value: Tensor) -> None:
        self._held[key] = value
        self._cache.put(key, value)

    def _unknown(self, prefix: Hashable, stages: Sequence[str]) -> list[str]:
        for stage in stages:
            found = self._cache.get((prefix, stage))
            if found is not None:
                self._held[(prefix, stage)] = found
        return [stage for stage in stages if (prefix, stage) not in self._held]

    def _stages(self, prefix: Hashable, stages: Sequence[str], compute: Compute) -> dict[str, Tensor]:
        held = {stage: self._held[prefix, stage] for stage in stages if (prefix, stage) in self._held}
        return held | cached_stages(self._cache, prefix, [stage for stage in stages if stage not in held], compute)

    def _run(self, picture: Array, stages: list[str], antialiased: bool) -> dict[str, Tensor]:
        with torch.no_grad():
            return self._engine._activations(picture, stages, antialiased=antialiased)


def _activations_key(picture: Array, antialiased: bool) -> Hashable:
    return ("activations", antialiased, picture_hash(picture))


def _gram_key(picture: Array, region: Array | None, normalization: GramNormalization, antialiased: bool) -> Hashable:
    of = (picture_hash(picture), None if region is None else picture_hash(region))
    return ("gram", antialiased, normalization, of)


class _Ahead:
    """Maps over an iterable in threads of its own, a bounded number of elements ahead of the consumer."""

    def __init__(self, window: int) -> None:
        self._room = threading.Semaphore(window)
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._closed = False

    def map(self, function: Any, elements: Iterable[Any]) -> Iterator[Any]:
        """Yields function(element) in order. An exception of the iterable is raised after what came before it."""
        threading.Thread(target=self._run, args=(function, elements), name="ahead", daemon=True).start()
        try:
            while True:
                kind, value = self._done.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                self._room.release()
                yield value.result()
        finally:
            self._closed = True
            self._room.release()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, function: Any, elements: Iterable[Any]) -> None:
        try:
            for element in elements:
                self._room.acquire()
                if self._closed:
                    return
                self._done.put(("value", self._pool.submit(function, element)))
        except BaseException as error:
            self._done.put(("error", error))
        else:
            self._done.put(("end", None))


def _each(batch: Tensor) -> Sequence[Tensor]:
    """The elements (C, H, W) of a batch; one alone by a view, so that its gradient needs no copy."""
    return [batch.squeeze(0)] if len(batch) == 1 else batch.unbind()


def _check_whole(picture: Array) -> None:
    _, height, width = picture.shape
    if height * width > EXTRACT_PIXELS:
        raise InvalidInput(
            f"{width} x {height} is {height * width:,} pixels; features are taken of {EXTRACT_PIXELS:,}: resize it",
            field="picture",
        )


def _evaluation(terms: list[float], targets: Targets, gradient: Array) -> Evaluation:
    total, style, content, total_variation, *stages = terms
    return Evaluation(
        loss=total,
        style_loss=style,
        content_loss=content,
        total_variation_loss=total_variation,
        stage_losses=dict(zip(targets.style, stages, strict=True)),
        gradient=gradient,
    )


def _form(activations: Tensor, form: Form, normalization: GramNormalization) -> Tensor:
    """One form of one picture's activations (C, H, W)."""
    if form is Form.ACTIVATIONS:
        return activations
    if form is Form.GRAM:
        return gram_matrix(activations, normalization)
    return activations.float().mean(dim=(1, 2))
