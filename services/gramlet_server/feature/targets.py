"""What an objective compares with: the content's activations, and the mean Gram matrices of the styles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from gramlet.errors import InvalidInput
from gramlet.feature.types import Objective, StageBalance
from gramlet.tensor.hashing import picture_hash
from gramlet.types import Array
from torch import Tensor

from gramlet_server.feature.cache import Cache
from gramlet_server.feature.gram import Region, energy, gram_matrix, region_at
from gramlet_server.feature.objective import (
    StyleGroup,
    StyleTarget,
    Targets,
    check_regions,
    check_settings,
    fit_regions,
    style_groups,
)
from gramlet_server.feature.passes import Passes
from gramlet_server.feature.steps import to_end
from gramlet_server.feature.tiles import Tile, TileSums
from gramlet_server.feature.work import Caller
from gramlet_server.process import identity
from gramlet_server.process.memory_budget import PROCESS, Place
from gramlet_server.telemetry import Observer

T = TypeVar("T")

_Key = tuple[Hashable, str]
"""The key of one tensor in the cache: what it was computed from, and the stage."""


class TargetBuilder:
    """Computes the targets of objectives.

    Args:
        passes: The network.
        cache_bytes: Memory for activations and Gram matrices, which all objectives share.
        observer: Receives hits and misses of the cache.
    """

    def __init__(self, passes: Passes, cache_bytes: int, observer: Observer) -> None:
        self._passes = passes
        budget = PROCESS if passes.memory.on_cpu else None
        self._cache: Cache[Tensor] = Cache("targets", cache_bytes, observer, lambda tensor: tensor.nbytes, budget)

    def build(self, caller: Caller, objective: Objective) -> Targets:
        """Checks an objective and computes its targets, in passes of the caller.

        Raises:
            InvalidInput: Naming the field of the objective.
            Cancelled: The caller was closed meanwhile.
        """
        self._check(objective)
        if not any(objective.style_stages.values()):
            objective = replace(objective, style_weight=0.0)  # no stage counts: there is no style loss
            self._check(objective)
        objective, shape = fit_regions(objective)
        statistics = PictureStatistics(self._passes, self._cache, objective)
        whole_pixels = 0
        kept = PROCESS.reserve(self._passes.memory.kept_targets(objective))
        with kept, self._room(objective):
            for needs in _needs(objective):
                if self._passes.needs_tiles(needs.picture):
                    statistics.read_in_tiles(caller, needs)
                else:
                    whole_pixels += needs.picture[0].size
            work = partial(_compute, objective, shape, statistics)
            targets, _ = self._passes.run_single(caller, "targets", max(1, whole_pixels), work)
            kept.move_to(targets)
        return targets

    def _room(self, objective: Objective) -> Place:
        """Room for the passes over the objective's pictures."""
        pixels, stages = 0, set()
        for needs in _needs(objective):
            of_picture = list(dict.fromkeys([*needs.activations, *needs.grams]))
            stages.update(of_picture)
            _, height, width = needs.picture.shape
            pixels = max(pixels, self._passes.pixels_at_once((height, width), of_picture, objective.antialiased))
        return self._passes.memory.targets(pixels, stages, objective.antialiased, "objective")

    def check(self, objective: Objective) -> None:
        """Checks all of an objective but its pictures and regions, which may still be as they travel.

        Raises:
            InvalidInput: Naming the field of the objective.
        """
        network = self._passes.network
        check_settings(objective, network.architecture)
        if objective.antialiased and not network.can_antialias:
            raise InvalidInput(f"{network.name} has no strides to antialias", field="antialiased")

    def _check(self, objective: Objective) -> None:
        self.check(objective)
        check_regions(objective.styles if objective.style_weight else ())
        if objective.content is not None:
            content_stage = [objective.content_stage] if objective.content_weight else []
            self._passes.check_size(objective.content.shape[1:], [*objective.style_stages, *content_stage], "content")
        for index, style in enumerate(objective.styles):
            self._passes.check_size(style.picture.shape[1:], objective.style_stages, f"styles[{index}].picture")


# --- which pictures and stages an objective needs ---


@dataclass(frozen=True)
class _Needs:
    """What the targets need of one picture.

    Attributes:
        picture: (3, H, W).
        activations: The stages whose activations are needed.
        regions: The regions (None: everywhere) whose Gram matrices are needed.
        grams: The stages of these Gram matrices.
    """

    picture: Array
    activations: tuple[str, ...]
    regions: tuple[Array | None, ...]
    grams: tuple[str, ...]


def _needs(objective: Objective) -> list[_Needs]:
    """Everything that `_compute` reads, each picture once."""
    content = objective.content
    regions: dict[int, list[Array | None]] = {}
    for group in style_groups(objective.styles) if objective.style_weight else ():
        for style in group.styles:
            regions.setdefault(id(style.picture), []).append(style.style_region)
        if content is not None and objective.stage_balance is StageBalance.CONTENT:
            regions.setdefault(id(content), []).append(group.region)

    def needs(picture: Array) -> _Needs:
        activations = (objective.content_stage,) if picture is content and objective.content_weight else ()
        stages = tuple(stage for stage, weight in objective.style_stages.items() if weight)
        return _Needs(picture, activations, tuple(regions.get(id(picture), ())), stages)

    pictures = {id(style.picture): style.picture for style in objective.styles}
    if content is not None:
        pictures[id(content)] = content
    return [each for each in map(needs, pictures.values()) if each.activations or each.regions]


class PictureStatistics:
    """Activations and Gram matrices of an objective's pictures, from the cache where it has them.

    Args:
        passes: The network.
        cache: Where results of earlier objectives are, and where new ones are put.
        objective: Its Gram normalization and antialiasing apply.
    """

    def __init__(self, passes: Passes, cache: Cache[Tensor], objective: Objective) -> None:
        self._passes = passes
        self._architecture = passes.network.architecture
        self._cache = cache
        self._objective = objective
        self._normalization = objective.gram_normalization
        self._antialiased = objective.antialiased
        # By owner too: how soon a target is there says nothing about the pictures of others.
        owner = identity.caller.get().name
        self._hashes = {id(picture): (owner, picture_hash(picture)) for picture in _pictures_and_regions(objective)}
        # What was read in tiles is also kept here: the cache may be too small for it.
        self._kept: dict[_Key, Tensor] = {}

    # --- on the device thread ---

    def activations(self, picture: Array, stage: str) -> Tensor:
        """(C, H, W), float32."""

        def compute(stages: list[str]) -> dict[str, Tensor]:
            found = self._passes.activations(picture, stages, antialiased=self._antialiased)
            return {name: activations.float().contiguous() for name, activations in found.items()}

        return self._through_cache(self._activations_key(picture), [stage], compute)[stage]

    def grams(self, picture: Array, region: Array | None, stages: Sequence[str]) -> Mapping[str, Tensor]:
        """(C, C), float32, by stage; of a region (H, W) of the picture, or of all of it."""

        def compute(missing: list[str]) -> dict[str, Tensor]:
            found = self._passes.activations(picture, missing, antialiased=self._antialiased)
            return {
                name: gram_matrix(each, self._normalization, self._region_or_all(region, name))
                for name, each in found.items()
            }

        return self._through_cache(self._gram_key(picture, region), stages, compute)

    def region(self, mask: Array, stage: str) -> tuple[Region, bool]:
        """A mask (H, W) of its picture's size at a stage; and whether any position of the stage lies in it."""
        height, width = mask.shape
        _, rows, columns = self._architecture.activation_shape(stage, height, width, self._antialiased)
        return region_at(torch.tensor(mask, device=self._passes.network.device), rows, columns)

    def finest(self, stages: Sequence[str]) -> str:
        """The stage with the most positions."""
        return next(stage.name for stage in self._architecture.stages if stage.name in stages)

    # --- on a caller's thread ---

    def read_in_tiles(self, caller: Caller, needs: _Needs) -> None:
        """Reads what a large picture lacks, each tile in a pass of its own."""
        picture = needs.picture
        stages, grams = self._missing_of(needs)
        needed = list(dict.fromkeys([*stages, *(stage for _, stage in grams)]))
        if not needed:
            return

        def start() -> TileSums:
            return TileSums(stages, [(stage, self._region_or_all(mask, stage)) for (_, stage), mask in grams.items()])

        def add(tile: Tile) -> None:
            found = self._passes.activations(tile.of(picture), needed, antialiased=self._antialiased)
            to_end(sums.add(tile, found))

        def finish() -> None:
            for stage, activations in sums.activations.items():
                self._keep((self._activations_key(picture), stage), activations)
            for key, gram in zip(grams, sums.grams(tiles[0].shapes, self._normalization), strict=True):
                self._keep(key, gram)

        def run(pixels: int, work: Callable[[], T]) -> T:
            return self._passes.run_single(caller, "targets", pixels, work)[0]

        tiles = self._passes.tiles(picture, needed, self._antialiased)
        sums = run(1, start)
        for tile in tiles:
            run(tile.pixels, partial(add, tile))
        run(1, finish)

    def _missing_of(self, needs: _Needs) -> tuple[list[str], dict[_Key, Array | None]]:
        """What has to be computed: the stages of activations; and the keys of Gram matrices with their regions."""
        grams: dict[_Key, Array | None] = {}
        for region in needs.regions:
            prefix = self._gram_key(needs.picture, region)
            grams |= {(prefix, stage): region for stage in self._missing(prefix, needs.grams)}
        return self._missing(self._activations_key(needs.picture), needs.activations), grams

    # --- the cache ---

    def _activations_key(self, picture: Array) -> Hashable:
        return ("activations", self._antialiased, self._hashes[id(picture)])

    def _gram_key(self, picture: Array, region: Array | None) -> Hashable:
        hashes = (self._hashes[id(picture)], None if region is None else self._hashes[id(region)])
        return ("gram", self._antialiased, self._normalization, hashes)

    def _through_cache(
        self, prefix: Hashable, stages: Sequence[str], compute: Callable[[list[str]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """One tensor for each stage; the missing ones are computed in one forward pass."""
        missing = self._missing(prefix, stages)
        computed = compute(missing) if missing else {}
        for stage, tensor in computed.items():
            self._cache.put((prefix, stage), tensor)
        return {stage: computed[stage] if stage in computed else self._kept[prefix, stage] for stage in stages}

    def _missing(self, prefix: Hashable, stages: Sequence[str]) -> list[str]:
        """The stages that have to be computed; tensors of the others are kept from now on."""
        for stage in stages:
            if (prefix, stage) not in self._kept and (found := self._cache.get((prefix, stage))) is not None:
                self._kept[prefix, stage] = found
        return [stage for stage in stages if (prefix, stage) not in self._kept]

    def _keep(self, key: _Key, value: Tensor) -> None:
        self._kept[key] = value
        self._cache.put(key, value)

    def _region_or_all(self, mask: Array | None, stage: str) -> Region | None:
        return None if mask is None else self.region(mask, stage)[0]


def _pictures_and_regions(objective: Objective) -> Iterator[Array]:
    if objective.content is not None:
        yield objective.content
    for style in objective.styles:
        yield style.picture
        yield from (region for region in (style.content_region, style.style_region) if region is not None)


# --- from statistics to targets; on the device thread ---


def _compute(objective: Objective, shape: tuple[int, int] | None, statistics: PictureStatistics) -> Targets:
    """The targets of a checked objective whose regions fit their pictures."""
    content, content_weight = None, objective.content_weight
    if objective.content is not None and content_weight:
        content = statistics.activations(objective.content, objective.content_stage)
        _, height, width = objective.content.shape
        shape = (height, width)
        if objective.stage_balance is StageBalance.CONTENT:
            content_weight /= max(float(content.square().mean()), 1e-12)
    return Targets(
        style=_style_targets(objective, statistics) if objective.style_weight else {},
        content=content,
        picture_shape=shape,
        content_stage=objective.content_stage,
        content_weight=content_weight,
        style_weight=objective.style_weight,
        total_variation_weight=objective.total_variation_weight,
        gram_normalization=objective.gram_normalization,
        antialiased=objective.antialiased,
        reduced_precision=objective.reduced_precision,
    )


def _style_targets(objective: Objective, statistics: PictureStatistics) -> dict[str, list[StyleTarget]]:
    stages = [stage for stage, weight in objective.style_stages.items() if weight]
    targets: dict[str, list[StyleTarget]] = {stage: [] for stage in stages}
    for group in style_groups(objective.styles):
        for stage, target in _group_targets(group, stages, objective, statistics).items():
            targets[stage].append(target)
    return {stage: found for stage, found in targets.items() if found}


def _group_targets(
    group: StyleGroup, stages: Sequence[str], objective: Objective, statistics: PictureStatistics
) -> Mapping[str, StyleTarget]:
    total = sum(style.weight for style in group.styles)
    shares = [style.weight / total for style in group.styles]
    regions = _group_regions(group, stages, statistics)
    grams = [statistics.grams(style.picture, style.style_region, list(regions)) for style in group.styles]
    content: Mapping[str, Tensor] = {}
    if objective.stage_balance is StageBalance.CONTENT and objective.content is not None:
        content = statistics.grams(objective.content, group.region, list(regions))

    targets = {}
    for stage, region in regions.items():
        stacked = torch.stack([gram[stage] for gram in grams])  # (styles, C, C)
        weights = stacked.new_tensor(shares)[:, None, None]
        mean = (weights * stacked).sum(0)
        spread = float((weights * (stacked - mean).square()).sum(0).mean()) if len(grams) > 1 else 0.0
        weight = objective.style_stages[stage] * group.share
        if stage in content:
            start = float((content[stage] - mean).square().mean()) + spread
            # Where the content already has the style of a stage, there is nothing to divide by.
            weight = weight / start if start > 0 else weight
        targets[stage] = StyleTarget(mean, spread, weight, energy(mean), region)
    return targets


def _group_regions(
    group: StyleGroup, stages: Sequence[str], statistics: PictureStatistics
) -> Mapping[str, Region | None]:
    """The group's region at each stage where it, and the region of each style picture, has at least one position.

    A stage is left out where a region is too small for it: the activations there mostly describe what lies outside. A
    region too small for all stages keeps the finest one.
    """
    style_regions = [style.style_region for style in group.styles if style.style_region is not None]
    found: dict[str, Region | None] = {}
    too_coarse: list[str] = []
    for stage in stages:
        region, seen = (None, True) if group.region is None else statistics.region(group.region, stage)
        if not (seen and all(statistics.region(mask, stage)[1] for mask in style_regions)):
            too_coarse.append(stage)
        found[stage] = region
    kept = [stage for stage in stages if stage not in too_coarse] or [statistics.finest(too_coarse)]
    return {stage: found[stage] for stage in kept}
