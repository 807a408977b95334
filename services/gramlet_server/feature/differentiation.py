"""Loss and gradient of an objective at a picture: in one pass, or tile by tile where the picture is large."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from gramlet.errors import InvalidInput, Unavailable
from gramlet.feature.types import Evaluation, Objective
from gramlet.types import Array
from torch import Tensor

from gramlet_server.backbone.tape import Tape
from gramlet_server.feature.graphs import PassKey
from gramlet_server.feature.objective import Targets
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.steps import Steps
from gramlet_server.feature.targets import TargetBuilder
from gramlet_server.feature.tiles import Tile, TiledEvaluation
from gramlet_server.feature.work import Caller, Work, outcome
from gramlet_server.process.memory_budget import PROCESS, Place

Parts = Generator[None, None, None]


class Differentiator:
    """Evaluates objectives.

    Args:
        passes: The network.
        targets: Computes what objectives compare with.
        batch_gradients: Let pictures of one size share passes, whosever they are.
    """

    def __init__(self, passes: Passes, targets: TargetBuilder, batch_gradients: bool) -> None:
        self._passes = passes
        self._network = passes.network
        self._targets = targets
        self._batch_gradients = batch_gradients
        self._draining = False

    @contextmanager
    def open(self) -> Iterator[LocalDifferentiation]:
        """A differentiation whose first objective is still to be set.

        Raises:
            Overloaded: The device's queue is full.
        """
        with self._passes.scheduler.caller() as caller:
            yield LocalDifferentiation(self, self._targets, caller)

    def drain(self) -> None:
        """Lets evaluations fail with Unavailable from now on, so that their callers go on at another server."""
        self._draining = True

    def evaluate(self, caller: Caller, picture: Array, targets: Targets | None) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), in passes of the caller; see `LocalDifferentiation.evaluate`."""
        if self._draining:
            raise Unavailable("this replica is shutting down: go on at another one", retry_after=0.0)
        if targets is None:
            raise InvalidInput("send an objective before the first picture", field="setup")
        _, height, width = picture.shape
        if targets.picture_shape not in (None, (height, width)):
            raise InvalidInput(f"the picture is {width} x {height}, the objective's is not", field="evaluate.picture")
        self._passes.check_size(picture.shape[1:], targets.stages, "evaluate.picture")
        # The gradient, and the message that it becomes.
        with PROCESS.reserve(2 * picture.nbytes, "evaluate.picture"):
            place, is_long = self.room((height, width), targets, "evaluate.picture")
            with place:
                return self._evaluate(caller, picture, targets, is_long)

    def room(self, size: tuple[int, int], targets: Targets, field: str) -> tuple[Place, bool]:
        """Memory for the passes of an evaluation at a picture of that height and width.

        Returns:
            The memory; and whether the passes are long, and may be suspended.

        Raises:
            InvalidInput, Overloaded: There is none, ever or now.
        """
        pixels = in_all = self._passes.pixels_at_once(size, targets.stages, targets.antialiased)
        if self._batch_gradients:
            in_all *= self._passes.scheduler.room(pixels)
        memory, what = self._passes.memory, (in_all, targets.stages, targets.antialiased)
        if self._passes.may_be_long(pixels) and (place := memory.suspended_gradient(*what)):
            return place, True
        return memory.gradient(*what, field), False

    def _evaluate(self, caller: Caller, picture: Array, targets: Targets, is_long: bool) -> Evaluation:
        _, height, width = picture.shape
        if self._passes.needs_tiles(picture) and targets.stages:
            return self._evaluate_in_tiles(caller, picture, targets, is_long)
        shared = None
        if self._batch_gradients:
            how = targets.stages, targets.antialiased, targets.reduced_precision
            shared = ("gradient", height, width, *how, is_long)
        run = self._evaluate_in_parts if is_long else self.evaluate_batch
        work = Work("gradient", shared, height * width, run, (picture, targets), is_long=is_long)
        evaluation: Evaluation
        evaluation, timing = outcome(caller.submit(work))
        return replace(evaluation, timing=timing)

    def evaluate_batch(self, batch: Sequence[tuple[Array, Targets]]) -> list[Evaluation]:
        """Loss and gradient at each picture, in one pass on the device thread.

        All pictures have one size, and all targets the same stages, antialiasing and precision.
        """
        targets = [each for _, each in batch]
        key = PassKey("gradient", owners=tuple(targets), is_gradient=True)
        compute = partial(self._losses_and_gradients, targets)
        terms, gradients = self._passes.run([picture for picture, _ in batch], compute, key)
        return _evaluations(targets, terms, gradients)

    def _evaluate_in_parts(self, batch: Sequence[tuple[Array, Targets]]) -> Steps[list[Evaluation]]:
        """The same, and the device may serve others between its parts."""
        targets = [each for _, each in batch]
        compute = partial(self._losses_and_gradients, targets)
        terms, gradients = yield from self._passes.run_in_parts([picture for picture, _ in batch], compute)
        return _evaluations(targets, terms, gradients)

    def _losses_and_gradients(self, targets: Sequence[Targets], pictures: Tensor) -> Iterator[Tensor | None]:
        """The loss terms of all pictures, then their gradients (N, 3, H, W); None where others may be served."""
        stages = dict.fromkeys(stage for each in targets for stage in each.stages)
        tape = yield from self._tape(pictures, stages, targets[0])
        terms, upstream, gradients = yield from _differentiated(targets, pictures, tape.activations())
        if upstream:
            found = yield from tape.gradient(upstream)
            gradients = found if gradients is None else gradients + found
        yield terms
        yield gradients

    def resident(self, picture: Tensor, targets: Targets) -> Steps[tuple[Tensor, Tensor]]:
        """Loss terms, ordered as `Losses.terms`, and gradient (3, H, W) at a picture (3, H, W) of the device.

        Both stay there, as new tensors. A large picture is evaluated tile by tile, and others are served in between.
        """
        if self._passes.needs_tiles(picture) and targets.stages:
            return (yield from self._in_tiles(picture, targets))
        if targets.signature is None:
            key = PassKey("gradient", owners=(targets,), is_gradient=True)
        else:
            key = PassKey(targets.signature, is_gradient=True)

        def compute(pictures: Tensor, inputs: Sequence[Tensor]) -> Iterator[Tensor | None]:
            return self._losses_and_gradients([targets.reading(inputs)], pictures)

        terms, gradients = yield from self._passes.device.run_resident(picture[None], targets.inputs, compute, key)
        return terms, gradients[0]

    def _evaluate_in_tiles(self, caller: Caller, picture: Array, targets: Targets, is_long: bool) -> Evaluation:
        """Every tile is a step of its own: other callers are served in between, and closing the caller ends it."""

        def steps() -> Steps[tuple[list[float], Array]]:
            resident = self._passes.device.with_room(lambda: self._passes.device.upload([picture]))[0]
            terms, gradient = yield from self._in_tiles(resident, targets)
            return terms.tolist(), gradient.cpu().numpy()

        pixels = self._passes.tile_pixels
        (terms, gradient), timing = self._passes.run_steps(caller, "gradient", pixels, steps(), is_long)
        return replace(_evaluation(terms, targets, gradient), timing=timing)

    def _in_tiles(self, picture: Tensor, targets: Targets) -> Steps[tuple[Tensor, Tensor]]:
        _, height, width = picture.shape
        with_room, parts_with_room = self._passes.device.with_room, self._passes.device.parts_with_room
        tiles = self._passes.tiles(picture, targets.stages, targets.antialiased)
        state = with_room(lambda: TiledEvaluation(targets, height, width, self._network.device))
        for tile in tiles if targets.style else ():
            yield from parts_with_room(partial(self._add_tile, state, targets, picture, tile))
            yield None
        with_room(lambda: state.compare(tiles[0].shapes))
        for tile in tiles:
            yield from parts_with_room(partial(self._differentiate_tile, state, targets, picture, tile))
            yield None
        return with_room(lambda: state.evaluation(picture))

    @torch.no_grad()
    def _add_tile(self, state: TiledEvaluation, targets: Targets, picture: Tensor, tile: Tile) -> Parts:
        how = {"antialiased": targets.antialiased, "smooth": True, "reduced": targets.reduced_precision}
        activations = {}
        for stage, found in self._network.by_part(tile.of(picture)[None], tuple(targets.style), **how):
            if stage:
                activations[stage] = found.squeeze(0)
            yield
        yield from state.add(tile, activations)

    def _differentiate_tile(self, state: TiledEvaluation, targets: Targets, picture: Tensor, tile: Tile) -> Parts:
        tape = yield from self._tape(tile.of(picture)[None].contiguous(), targets.stages, targets)
        yield from state.differentiate(tile, tape)

    def _tape(self, pictures: Tensor, stages: Collection[str], targets: Targets) -> Generator[None, None, Tape]:
        return self._network.tape(
            pictures,
            stages,
            antialiased=targets.antialiased,
            reduced=targets.reduced_precision,
            in_parts=self._passes.may_be_long(pictures[0, 0].numel()),
        )


class LocalDifferentiation:
    """A differentiation in this process. Its connection is never lost."""

    reconnects = 0

    def __init__(self, differentiator: Differentiator, targets: TargetBuilder, caller: Caller) -> None:
        self._differentiator = differentiator
        self._builder = targets
        self._caller = caller
        self._targets: Targets | None = None

    def evaluate(self, picture: Array) -> Evaluation:
        """Loss and gradient at a picture (3, H, W), float32, RGB in 0..1 or a little outside.

        Raises:
            InvalidInput: No objective is set, or the picture's shape is not the content's.
            Cancelled: The differentiation was closed meanwhile.
            Unavailable: The server is shutting down, or its device has failed.
        """
        return self._differentiator.evaluate(self._caller, picture, self._targets)

    def replace(self, objective: Objective) -> None:
        """Sets the objective from the next evaluation on.

        Raises:
            InvalidInput: Naming the field of the objective.
        """
        self._targets = self._builder.build(self._caller, objective)

    def close(self) -> None:
        """Cancels an evaluation that waits for the device in another thread."""
        self._caller.close()


def _unbatched(batch: Tensor) -> Sequence[Tensor]:
    """The elements (C, H, W) of a batch. A single one is a view, whose gradient needs no copy."""
    return [batch.squeeze(0)] if len(batch) == 1 else batch.unbind()


def _differentiated(
    targets: Sequence[Targets], pictures: Tensor, activations: Mapping[str, Tensor]
) -> Generator[None, None, tuple[Tensor, dict[str, Tensor], Tensor | None]]:
    """The losses at pictures (N, 3, H, W) with these activations by stage; yields after each stage.

    Returns:
        The loss terms of all pictures; the gradients of their sum with respect to the activations, by stage; and that
        with respect to the pictures, if a loss depends on them directly.
    """
    pictures = pictures.detach().requires_grad_()
    by_picture = {stage: _unbatched(found) for stage, found in activations.items()}
    losses = []
    for index, each in enumerate(targets):
        of_picture = {stage: found[index] for stage, found in by_picture.items()}
        losses.append((yield from each.losses(pictures[index], of_picture)))
    # Each loss depends on its own picture only, so the gradient of their sum holds the gradient of each.
    totals = [loss.total for loss in losses]
    upstream = {}
    for stage, found in activations.items():
        (upstream[stage],) = torch.autograd.grad(totals, [found], retain_graph=True)
        yield
    (gradients,) = torch.autograd.grad(totals, [pictures], allow_unused=True)
    # One transfer for all scalars: each transfer would wait for the device.
    return torch.stack([term.detach() for loss in losses for term in loss.terms]), upstream, gradients


def _evaluations(targets: Sequence[Targets], terms: Array, gradients: Array) -> list[Evaluation]:
    rest = iter(terms.tolist())
    return [
        _evaluation(list(islice(rest, each.term_count)), each, gradient)
        for each, gradient in zip(targets, gradients, strict=True)
    ]


def _evaluation(terms: list[float], targets: Targets, gradient: Array) -> Evaluation:
    """Terms are ordered as `Losses.terms`."""
    total, style, content, total_variation, *stages = terms
    return Evaluation(
        loss=total,
        style_loss=style,
        content_loss=content,
        total_variation_loss=total_variation,
        stage_losses=dict(zip(targets.style, stages, strict=True)),
        gradient=gradient,
    )
