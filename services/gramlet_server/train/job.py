"""One training run, from its pictures to its head; it can be cut off anywhere and resumed.

What a run keeps in the store, in the order in which it is written:

    configuration     the order, with the weights it is for, before any picture is asked for
    entries           the data set after the feature pass: split and hashed, with what was unreadable
    checkpoint-<n>    the training of recipe n, now and then
    recipe-<n>        what recipe n came to
    result            the head that was registered

Features are kept by the cache as they are computed. So a resumed run asks only for pictures whose features were lost,
and for none after the feature pass; and as training is deterministic, it ends with the same head wherever it was cut.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from gramlet.errors import InvalidInput, NotFound
from gramlet.feature.types import Model
from gramlet.folders import natural_key
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import TRAIN, VALIDATION, Configuration, Entry, Upload
from gramlet.train.types import Accepted, Epoch, Event, Findings, Head, HeadRef, Outcome, Result, Skipped, Started

from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature_source import FeatureSource
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.run import Run
from gramlet_server.train import data as data_sets
from gramlet_server.train import figures
from gramlet_server.train.cache import FeatureCache
from gramlet_server.train.classifier import BaseStages, added, difference
from gramlet_server.train.datasets import Datasets
from gramlet_server.train.features import EMBEDDING, FeaturePass
from gramlet_server.train.fit import Data, Fit, Samples, Trained, calibrated
from gramlet_server.train.registry import Registry
from gramlet_server.train.report import report

CHECKPOINT_SHARE = 10
"""Writing checkpoints takes at most one part in so many of the time."""


@dataclass(frozen=True)
class Tools:
    """What the runs of a process share."""

    features: FeatureSource
    registry: Registry
    cache: FeatureCache
    datasets: Datasets
    base: BaseStages
    device: str
    checkpoint_seconds: float


@dataclass(frozen=True)
class _Unreadable:
    position: int
    skipped: Skipped


@dataclass(frozen=True)
class _Seen:
    """The data set after the feature pass. Positions are those of the configuration's entries."""

    entries: tuple[Entry, ...]
    unreadable: tuple[_Unreadable, ...]
    seconds: float


@dataclass(frozen=True)
class _Done:
    head: HeadRef
    outcomes: tuple[Outcome, ...]
    best: int
    feature_seconds: float
    fit_seconds: float


@dataclass(frozen=True)
class _Prepared:
    data: Data
    findings: Findings
    seconds: float


@dataclass(frozen=True)
class _Finished:
    trained: Trained
    outcome: Outcome

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.save({"trained": vars(self.trained), "outcome": to_json(self.outcome).decode()}, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> _Finished:
        saved = torch.load(io.BytesIO(data), weights_only=True)
        return cls(Trained(**saved["trained"]), from_json(Outcome, saved["outcome"].encode()))


class Job:
    """One run.

    Args:
        tools: What it works with.
        run: Its place in the store, which it owns.
        configuration: Checked, with its entries split.
        model: The network.
        lifecycle: Asked after each step whether the server is shutting down.
    """

    def __init__(
        self,
        tools: Tools,
        run: Run,
        configuration: Configuration,
        model: Model,
        lifecycle: Lifecycle,
    ) -> None:
        self.run = run
        self._tools = tools
        self._configuration = configuration
        self._model = model
        self._lifecycle = lifecycle

    def events(self, uploads: Iterable[Upload]) -> Generator[Event, None, None]:
        """The whole run, in a thread of its own. Closing it stops the work, and keeps the best head if asked to."""
        set_single_threaded(not any(recipe.stages for recipe in self._configuration.recipes))
        result = self._find("result")
        if result is not None:
            yield Accepted(self.run.run_id, len(self._configuration.entries), (), ())
            yield self._result(from_json(_Done, result))
            return
        with tempfile.TemporaryDirectory(prefix="gramlet-train-") as scratch:
            prepared = yield from self._prepare(uploads, Path(scratch))
            started = time.perf_counter()
            finished: list[_Finished] = []
            for number in range(len(self._configuration.recipes)):
                finished.append((yield from self._train(number, prepared)))
            outcomes = tuple(item.outcome for item in finished)
            best = max(range(len(finished)), key=lambda number: _standing(outcomes[number]))
            head = self._register(prepared, finished[best], complete=True)
            fit_seconds = time.perf_counter() - started
            done = _Done(HeadRef(head.name, head.version), outcomes, best, prepared.seconds, fit_seconds)
            self.run.put("result", to_json(done))
            for number in range(len(finished)):
                self.run.put(f"recipe-{number}", b"")  # their weights are large, and the head has what it needs
        yield self._result(done)

    # The pictures

    def _prepare(self, uploads: Iterable[Upload], scratch: Path) -> Generator[Event, None, _Prepared]:
        configuration, stored = self._configuration, self._find("entries")
        seen = from_json(_Seen, stored) if stored else _Seen(configuration.entries, (), 0.0)
        boundaries = self._boundaries()
        features = FeaturePass(
            self._tools.features,
            self._model,
            self._tools.cache,
            seen.entries,
            skipped={item.position: item.skipped for item in seen.unreadable},
            stages=(EMBEDDING, *dict.fromkeys(boundaries.values())),
            size=configuration.size,
            views=configuration.views,
            unreadable=configuration.unreadable,
            scratch=scratch,
        )
        wanted = features.wanted
        if configuration.dataset:
            uploads = self._tools.datasets.read(configuration.dataset, seen.entries, wanted)
        asked = () if configuration.dataset else wanted
        names = tuple(seen.entries[position].name for position in asked)
        yield Accepted(self.run.run_id, len(seen.entries), asked, names)
        started = time.perf_counter()
        with closing(features.run(uploads)) as events:
            for event in events:
                yield event
                self._lifecycle.check_draining(self.run.run_id)
        seconds = time.perf_counter() - started
        if not stored:
            unreadable = tuple(_Unreadable(*item) for item in sorted(features.skipped.items()))
            self.run.put("entries", to_json(_Seen(tuple(features.entries), unreadable, seconds)))
        return _assemble(features, boundaries, seconds)

    def _boundaries(self) -> Mapping[str, str]:
        """By the first unfrozen stage of each recipe that has one: the stage before it."""
        first = {recipe.stages[0] for recipe in self._configuration.recipes if recipe.stages}
        if not first:
            return {}
        from gramlet_server.backbone.trainable import stage_before

        return {stage: stage_before(self._model.backbone, stage) for stage in sorted(first)}

    # The heads

    def _train(self, number: int, prepared: _Prepared) -> Generator[Event, None, _Finished]:
        stored = self._find(f"recipe-{number}")
        if stored:
            return _Finished.from_bytes(stored)
        recipe = self._configuration.recipes[number]
        late = self._tools.base.build(self._model.weights_digest, recipe.stages[0]) if recipe.stages else None
        fit = Fit(
            recipe,
            prepared.data,
            late=late,
            number=number,
            device=self._tools.device,
            checkpoint=self._find(f"checkpoint-{number}"),
        )
        sets = {name: len(samples) for name, samples in prepared.data.embeddings.items()}
        yield Started(number, fit.epoch, recipe.title, prepared.data.classes, sets)
        try:
            yield from self._epochs(fit)
        except GeneratorExit:
            if self._configuration.keep_on_cancel and fit.best is not None:
                self._register(prepared, self._finish(fit, prepared.data), complete=False)
            raise
        finished = self._finish(fit, prepared.data)
        self.run.put(f"recipe-{number}", finished.to_bytes())
        self.run.put(f"checkpoint-{number}", b"")
        return finished

    def _epochs(self, fit: Fit) -> Generator[Event, None, None]:
        saved, cost = time.perf_counter(), 0.0
        for event in fit.epochs():
            yield event
            now = time.perf_counter()
            pause = max(self._tools.checkpoint_seconds, CHECKPOINT_SHARE * cost)
            if isinstance(event, Epoch) and (self._lifecycle.draining or now - saved >= pause):
                self.run.put(f"checkpoint-{fit.number}", fit.checkpoint())
                saved = time.perf_counter()
                cost = saved - now
            self._lifecycle.check_draining(self.run.run_id)

    def _finish(self, fit: Fit, data: Data) -> _Finished:
        """The best epoch's weights as they will be served, calibrated and judged."""
        assert fit.best is not None
        trained = fit.best
        if trained.late:
            # What is stored is the difference, and what is judged is what the difference leads back to.
            base = self._base_state(fit.recipe.stages[0])
            trained = replace(trained, late=added(base, difference(base, trained.late)))
        samples = fit.samples_of(trained)
        logits = {name: fit.logits(samples[name], trained) for name in samples if name != TRAIN}
        trained = calibrated(trained, logits[VALIDATION], samples[VALIDATION].labels, fit.recipe)
        reports = tuple(
            report(name, data.classes, logits[name], samples[name].labels, trained.temperature) for name in logits
        )
        seconds = sum(epoch.seconds for epoch in fit.history)
        return _Finished(
            trained, Outcome(fit.recipe, reports, fit.history, trained.epoch, trained.temperature, seconds)
        )

    def _register(self, prepared: _Prepared, finished: _Finished, *, complete: bool) -> Head:
        configuration = self._configuration
        if complete and (earlier := self._tools.registry.of_run(configuration.name, self.run.run_id)):
            return earlier  # cut off between registering the head and saying so
        recipe, trained = finished.outcome.recipe, finished.trained
        stages = recipe.stages if trained.late else ()
        head = Head(
            name=configuration.name,
            version=0,
            run_id=self.run.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=self._model.backbone,
            weights_digest=self._model.weights_digest,
            classes=prepared.data.classes,
            kind=recipe.kind,
            stages=stages,
            feature_stage=self._boundaries()[stages[0]] if stages else EMBEDDING,
            size=configuration.size,
            complete=complete,
            bytes=0,
            outcome=finished.outcome,
            findings=prepared.findings,
        )
        delta = difference(self._base_state(stages[0]), trained.late) if stages else {}
        return self._tools.registry.add(head, trained.head, delta)

    def _base_state(self, first: str) -> dict[str, torch.Tensor]:
        return self._tools.base.build(self._model.weights_digest, first).state_dict()

    def _result(self, done: _Done) -> Result:
        return Result(
            head=self._tools.registry.get(done.head),
            outcomes=done.outcomes,
            best=done.best,
            feature_seconds=done.feature_seconds,
            fit_seconds=done.fit_seconds,
            learning_curves=figures.learning_curves(done.outcomes),
            confusion_matrix=figures.confusion_matrix(done.outcomes[done.best]),
        )

    def _find(self, name: str) -> bytes | None:
        """A value of the run; None where there is none, or an empty one."""
        try:
            return self.run.get(name) or None
        except NotFound:
            return None


def _assemble(features: FeaturePass, boundaries: Mapping[str, str], seconds: float) -> _Prepared:
    """What to train on: the readable pictures, each once, by set."""
    position_of = {entry.name: position for position, entry in enumerate(features.entries)}
    readable = [entry for position, entry in enumerate(features.entries) if position not in features.skipped]
    kept, duplicates = data_sets.duplicates(readable)
    data_sets.check_classes(features.entries, kept)
    classes = tuple(sorted({entry.label for entry in kept if entry.set == TRAIN}, key=natural_key))
    sets = {name: [kept[number] for number in numbers] for name, numbers in data_sets.sets_of(kept).items()}
    if not sets[VALIDATION]:
        raise InvalidInput("no picture of the validation set is left", field="entries")

    def samples(stage: str) -> dict[str, Samples]:
        return {name: _samples(features, stage, entries, position_of, classes) for name, entries in sets.items()}

    own = np.array([features.rows(position_of[entry.name])[0] for entry in kept])
    return _Prepared(
        Data(classes, samples(EMBEDDING), {first: samples(before) for first, before in boundaries.items()}),
        Findings(
            tuple(features.skipped[position] for position in sorted(features.skipped)),
            duplicates,
            data_sets.suspects(kept, features.array(EMBEDDING)[own]),
        ),
        seconds,
    )


def _samples(
    features: FeaturePass,
    stage: str,
    entries: Sequence[Entry],
    position_of: Mapping[str, int],
    classes: tuple[str, ...],
) -> Samples:
    rows, labels = [], []
    for entry in entries:
        found = features.rows(position_of[entry.name])
        rows += found
        labels += [classes.index(entry.label)] * len(found)
    return Samples(features.array(stage), np.array(rows, dtype=np.int64), np.array(labels, dtype=np.int64))


def _standing(outcome: Outcome) -> tuple[float, float]:
    """Among recipes the validation accuracy decides, then the loss."""
    found = outcome.report(VALIDATION)
    assert found is not None
    return found.accuracy, -found.loss
