"""What a training run does, from its pictures to its head. It can be interrupted anywhere and resumed.

A run keeps in the store, in the order in which they are written:

    configuration     the order, with the digest of the network's weights, before any picture is asked for
    entries           the data set after the feature pass: split and hashed, and which pictures were unreadable
    checkpoint-<n>    the training of recipe n, every few seconds
    recipe-<n>        the trained head of recipe n
    result            which head was registered, and the outcomes

A process may be lost after it has stored an epoch and before it has sent its event. So a process that goes on with the
run sends the events of all skipped pictures and finished epochs again; callers skip those that they have seen.

The cache keeps the features. So a resumed run asks only for pictures whose features are missing, and for none after the
feature pass. Training is deterministic, so a run ends with the same head wherever it was interrupted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gramlet.feature.types import Model
from gramlet.json_codec import from_json, to_json
from gramlet.train.configuration import Configuration, Entry, Upload
from gramlet.train.types import Accepted, Epoch, Event, Head, HeadRef, Outcome, Result, Skipped, Started

from gramlet_server.backbone.architecture import architecture
from gramlet_server.backbone.threads import set_single_threaded
from gramlet_server.feature_source import FeatureSource
from gramlet_server.process.memory_budget import PROCESS, Reservation
from gramlet_server.runs.lifecycle import Lifecycle
from gramlet_server.runs.run import Run
from gramlet_server.train import comparison, data, findings, report
from gramlet_server.train.cache import FeatureCache
from gramlet_server.train.classifier import EMBEDDING, BaseStages, TrainedHead
from gramlet_server.train.data import Prepared
from gramlet_server.train.datasets import Datasets
from gramlet_server.train.features import FeaturePass
from gramlet_server.train.fit import Fit
from gramlet_server.train.memory import findings_bytes, fit_bytes, late_bytes
from gramlet_server.train.registry import Registry
from gramlet_server.train.remaining import check_remaining

CHECKPOINT_SHARE = 10
"""Writing checkpoints takes at most a tenth of the time."""


@dataclass(frozen=True)
class Environment:
    """What the runs of a process share.

    Attributes:
        checkpoint_seconds: Least time between two checkpoints.
        device: Where heads and late stages are trained.
    """

    features: FeatureSource
    registry: Registry
    cache: FeatureCache
    datasets: Datasets
    base: BaseStages
    lifecycle: Lifecycle
    checkpoint_seconds: float
    device: str


# Values of a run in the store, as JSON


@dataclass(frozen=True)
class _Unreadable:
    position: int
    skipped: Skipped


@dataclass(frozen=True)
class _StoredEntries:
    entries: tuple[Entry, ...]
    unreadable: tuple[_Unreadable, ...]
    seconds: float


@dataclass(frozen=True)
class _StoredResult:
    head: HeadRef
    outcomes: tuple[Outcome, ...]
    best: int
    feature_seconds: float
    fit_seconds: float
    sets: Mapping[str, int] = field(default_factory=dict)


class TrainingRun:
    """One run.

    Args:
        run: The run in the store, which this process owns.
        configuration: Checked, with its entries split.
        model: What the network is.
        environment: What it shares with other runs.
    """

    def __init__(self, run: Run, configuration: Configuration, model: Model, environment: Environment) -> None:
        self._run = run
        self._configuration = configuration
        self._model = model
        self._environment = environment

    def events(self, uploads: Iterable[Upload]) -> Generator[Event, None, None]:
        """Does the run. Closing the generator stops it, and keeps the best head so far if the configuration says so."""
        set_single_threaded(not any(recipe.stages for recipe in self._configuration.recipes))
        if self._run.has("result"):
            yield Accepted(self._run.run_id, len(self._configuration.entries), (), (), self._model.weights_digest)
            yield from reported(self._run)
            yield stored_result(self._run, self._environment.registry)
            return
        with tempfile.TemporaryDirectory(prefix="gramlet-train-") as scratch:
            features, feature_seconds = yield from self._extract(uploads, Path(scratch))
            configuration = self._configuration
            with self._room_for_findings():
                prepared = data.training_data(features, self._boundaries(), configuration.folds, configuration.seed)
            started = time.perf_counter()
            trained: list[TrainedHead] = []
            for number in range(len(configuration.recipes)):
                trained.append((yield from self._train(number, prepared)))
            outcomes = tuple(head.outcome for head in trained)
            head, best = self._register(trained, prepared, complete=True)
            fit_seconds = time.perf_counter() - started
            result = _StoredResult(
                HeadRef(head.name, head.version), outcomes, best, feature_seconds, fit_seconds, _sets(prepared)
            )
            self._run.put("result", to_json(result))
            for number in range(len(trained)):
                self._run.drop(f"recipe-{number}")  # nobody needs its weights any more
        yield _result(result, self._environment.registry)

    def _room_for_findings(self) -> Reservation:
        """Room for what looks for near-copies and wrong labels among all pictures."""
        return PROCESS.reserve(
            findings_bytes(self._configuration.entries, architecture(self._model.backbone)), "entries"
        )

    def _extract(self, uploads: Iterable[Upload], scratch: Path) -> Generator[Event, None, tuple[FeaturePass, float]]:
        """The feature pass, with the seconds that it took."""
        configuration, run = self._configuration, self._run
        stored = run.value("entries")
        with run.intact("entries"):
            known = from_json(_StoredEntries, stored) if stored else _StoredEntries(configuration.entries, (), 0.0)
        if all(entry.sha256 for entry in known.entries):  # then copies are known before anything is sent
            check_remaining(known.entries, *findings.duplicates(known.entries), unreadable={})
        features = self._feature_pass(known, scratch)
        wanted = features.wanted
        if configuration.dataset:
            uploads, wanted = self._environment.datasets.read(configuration.dataset, known.entries, wanted), ()
        names = tuple(known.entries[position].name for position in wanted)
        yield Accepted(run.run_id, len(known.entries), wanted, names, self._model.weights_digest)
        yield from (item.skipped for item in known.unreadable)
        started = time.perf_counter()
        with closing(features.run(uploads)) as events:
            for event in events:
                yield event
                self._environment.lifecycle.check_draining(run.run_id)
        seconds = time.perf_counter() - started
        if not stored:
            unreadable = tuple(_Unreadable(*item) for item in sorted(features.skipped.items()))
            run.put("entries", to_json(_StoredEntries(tuple(features.entries), unreadable, seconds)))
        return features, seconds

    def _feature_pass(self, known: _StoredEntries, scratch: Path) -> FeaturePass:
        return FeaturePass(
            self._environment.features,
            self._model,
            self._environment.cache,
            known.entries,
            skipped={item.position: item.skipped for item in known.unreadable},
            stages=(EMBEDDING, *dict.fromkeys(self._boundaries().values())),
            size=self._configuration.size,
            views=self._configuration.views,
            unreadable=self._configuration.unreadable,
            scratch=scratch,
        )

    def _boundaries(self) -> Mapping[str, str]:
        """By the first unfrozen stage of each recipe that has one: the stage before it."""
        first = sorted({recipe.stages[0] for recipe in self._configuration.recipes if recipe.stages})
        if not first:
            return {}
        from gramlet_server.backbone.trainable import stage_before

        return {stage: stage_before(self._model.backbone, stage) for stage in first}

    def _train(self, number: int, prepared: Prepared) -> Generator[Event, None, TrainedHead]:
        """Trains a recipe from its last checkpoint on, or returns what an earlier owner of the run trained."""
        recipe, samples = self._configuration.recipes[number], prepared.data
        if stored := self._run.value(f"recipe-{number}"):
            with self._run.intact(f"recipe-{number}"):
                earlier = TrainedHead.from_bytes(stored)
            yield from _done(number, recipe.title, earlier.outcome.history, samples.classes, _sets(prepared))
            return earlier
        with PROCESS.reserve(self._fit_bytes(number, prepared), f"recipes[{number}]"):
            return (yield from self._fit(number, prepared))

    def _fit(self, number: int, prepared: Prepared) -> Generator[Event, None, TrainedHead]:
        recipe, environment, samples = self._configuration.recipes[number], self._environment, prepared.data
        fit = Fit(
            recipe,
            samples,
            late=environment.base.build(self._model.weights_digest, recipe.stages[0]) if recipe.stages else None,
            number=number,
            device=environment.device,
            checkpoint=self._run.value(f"checkpoint-{number}"),
        )
        yield from _done(number, recipe.title, fit.history, samples.classes, _sets(prepared))
        try:
            yield from self._epochs(fit)
        except GeneratorExit:  # the run was cancelled
            if self._configuration.keep_on_cancel and fit.best is not None:
                self._register([fit.finish()], prepared, complete=False)
            raise
        trained = fit.finish()
        self._run.put(f"recipe-{number}", trained.to_bytes())
        self._run.drop(f"checkpoint-{number}")
        return trained

    def _fit_bytes(self, number: int, prepared: Prepared) -> int:
        """What training a recipe takes of this process."""
        recipe, digest = self._configuration.recipes[number], self._model.weights_digest
        weights = self._environment.base.weights(digest).state if recipe.stages else {}
        return fit_bytes(
            recipe,
            prepared.data,
            late_bytes(weights, recipe.stages),
            architecture(self._model.backbone),
            self._configuration.size,
            resumed=self._run.has(f"checkpoint-{number}"),
        )

    def _epochs(self, fit: Fit) -> Generator[Event, None, None]:
        lifecycle = self._environment.lifecycle
        saved, cost = time.perf_counter(), 0.0
        for event in fit.epochs():
            yield event
            now = time.perf_counter()
            pause = max(self._environment.checkpoint_seconds, CHECKPOINT_SHARE * cost)
            if isinstance(event, Epoch) and (lifecycle.draining or now - saved >= pause):
                self._run.put(f"checkpoint-{fit.number}", fit.checkpoint())
                saved = time.perf_counter()
                cost = saved - now
            lifecycle.check_draining(self._run.run_id)

    def _register(self, trained: Sequence[TrainedHead], prepared: Prepared, *, complete: bool) -> tuple[Head, int]:
        """Stores the best head; returns it with the number of its recipe."""
        configuration, registry = self._configuration, self._environment.registry
        chosen = comparison.choose(trained, prepared)
        # An earlier owner of the run may have registered the head and died before it stored the result.
        if complete and (earlier := registry.of_run(configuration.name, self._run.run_id)):
            return earlier, chosen.number
        kept = trained[chosen.number]
        with self._room_for_findings():
            found = comparison.all_findings(trained, chosen, prepared)
            evidence = comparison.evidence(kept, prepared)
        head = Head(
            name=configuration.name,
            version=0,
            run_id=self._run.run_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            backbone=self._model.backbone,
            weights_digest=self._model.weights_digest,
            classes=prepared.data.classes,
            kind=kept.outcome.recipe.kind,
            stages=kept.stages,
            feature_stage=self._boundaries()[kept.stages[0]] if kept.stages else EMBEDDING,
            size=configuration.size,
            complete=complete,
            bytes=0,
            outcome=chosen.outcome,
            findings=found,
        )
        weights = replace(kept.weights, evidence=evidence)
        return registry.add(head, weights), chosen.number


def _sets(prepared: Prepared) -> dict[str, int]:
    return {name: len(group) for name, group in prepared.data.embeddings.items()}


def _done(
    number: int, title: str, history: Sequence[Epoch], classes: tuple[str, ...], sets: Mapping[str, int]
) -> Iterator[Event]:
    """The begin of a recipe, and its epochs so far."""
    yield Started(number, len(history), title, classes, sets)
    yield from history


def reported(run: Run) -> Iterator[Event]:
    """The events before the result of a run that has succeeded: skipped pictures, recipes and their epochs."""
    with run.intact("entries"):
        entries = from_json(_StoredEntries, run.get("entries"))
    yield from (item.skipped for item in entries.unreadable)
    result = _stored_result(run)
    classes = tuple(found.label for found in result.outcomes[result.best].reports[0].classes)
    for number, outcome in enumerate(result.outcomes):
        yield from _done(number, outcome.recipe.title, outcome.history, classes, result.sets)


def stored_result(run: Run, registry: Registry) -> Result:
    """The result of a run that has succeeded.

    Raises:
        NotFound: The head was deleted.
    """
    return _result(_stored_result(run), registry)


def _stored_result(run: Run) -> _StoredResult:
    with run.intact("result"):
        return from_json(_StoredResult, run.get("result"))


def _result(stored: _StoredResult, registry: Registry) -> Result:
    return Result(
        head=registry.get(stored.head),
        outcomes=stored.outcomes,
        best=stored.best,
        feature_seconds=stored.feature_seconds,
        fit_seconds=stored.fit_seconds,
        learning_curves=report.learning_curves(stored.outcomes),
        confusion_matrix=report.confusion_matrix(stored.outcomes[stored.best]),
    )
