"""What TrainService reports: the events of a run, heads with their reports. What Predict returns: `predictions`.

Plain frozen dataclasses, shared by the SDK and the server. What a run is asked to do: `configuration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gramlet.run.types import Progress
from gramlet.train.configuration import OUT_OF_FOLD, HeadKind, Recipe


@dataclass(frozen=True)
class Queued:
    """The run waits: `position` runs are before it; 0: it is the next."""

    position: int


@dataclass(frozen=True)
class Accepted:
    """The run is valid and exists: with its run id it can be resumed.

    Attributes:
        pictures: In the data set.
        wanted: Positions, in the configuration's entries, of the pictures to send.
        names: The wanted entries' names, in the same order.
        weights_digest: Of the network whose features are used.
    """

    run_id: str
    pictures: int
    wanted: tuple[int, ...]
    names: tuple[str, ...]
    weights_digest: str = ""


@dataclass(frozen=True)
class Extracting:
    """The one pass through the frozen network: pictures done, of them from the cache, and seconds left (estimate)."""

    done: int
    total: int
    cached: int
    seconds_left: float


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read and takes no part."""

    name: str
    reason: str


@dataclass(frozen=True)
class Started:
    """A recipe's training begins, or goes on from a checkpoint.

    Attributes:
        recipe: Position in the configuration's recipes.
        epoch: The last epoch already done: 0 for a new training.
        classes: In the order of the head's outputs.
        sets: Pictures in each set.
    """

    recipe: int
    epoch: int
    title: str
    classes: tuple[str, ...]
    sets: Mapping[str, int]


@dataclass(frozen=True)
class Step:
    """A batch of an epoch is done. Sent where an epoch takes longer than half a second."""

    recipe: int
    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set.

    Attributes:
        recipe: Position in the configuration's recipes.
        phase: `head`, or `stages` where late stages are trained too.
        epoch: Counted from 1 through all phases of the recipe.
        epochs: The last epoch, where early stopping does not come first.
        loss: Mean training loss of the final model, with class weights and label smoothing.
        validation_loss: Mean cross-entropy of the out-of-fold predictions; so are `accuracy` and `macro_f1`.
        rates: Learning rate of the head (`head`) and of each unfrozen stage.
        best: Whether this is the choice so far: the last epoch that is not worse than the best by more than one
            standard error.
    """

    recipe: int
    phase: str
    epoch: int
    epochs: int
    loss: float
    validation_loss: float
    accuracy: float
    macro_f1: float
    rates: Mapping[str, float]
    best: bool
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class RemoteProgress:
    """The progress of a run that another replica executes."""

    progress: Progress


@dataclass(frozen=True)
class Reconnecting:
    """The server was lost: the client looks for it, or for another one, which goes on."""

    message: str


@dataclass(frozen=True)
class ClassReport:
    """How well the head does on one class. Precision and recall are 0 where nothing was predicted or is there."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Report:
    """How a head does on one set.

    Attributes:
        set: `out_of_fold` for the training pictures, each predicted by a model that was not trained on it; or the
            name of another set. No label of a set, nor of the picture itself out-of-fold, chose anything.
        loss: Mean cross-entropy of the calibrated probabilities.
        top: Share of pictures whose class is among the k most probable, by k.
        macro_f1: Mean F1 of the classes present.
        calibration_error: Expected calibration error, 15 bins of equal width (Guo et al., ICML 2017).
        confusion: confusion[i][j]: pictures of class i that were classified as class j.
        accuracy_low, accuracy_high: The 95 % interval of the accuracy for other pictures like these (Wilson 1927).
    """

    set: str
    pictures: int
    loss: float
    accuracy: float
    top: Mapping[int, float]
    macro_f1: float
    calibration_error: float
    classes: tuple[ClassReport, ...]
    confusion: tuple[tuple[int, ...], ...]
    accuracy_low: float = 0.0
    accuracy_high: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of one recipe: its reports by set, its history, and the wall time of its epochs."""

    recipe: Recipe
    reports: tuple[Report, ...]
    history: tuple[Epoch, ...]
    best_epoch: int
    temperature: float
    seconds: float

    def report(self, name: str = OUT_OF_FOLD) -> Report | None:
        """The report on that set, or None."""
        return next((report for report in self.reports if report.set == name), None)


@dataclass(frozen=True)
class Duplicate:
    """A picture that stands in the data twice, byte for byte. The later one takes no part.

    `conflicting` where the two have different labels: then neither takes part.
    """

    name: str
    first: str
    conflicting: bool


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures that are almost the same to the network: copies in another size, crop or compression.

    Both take part, in the same fold. If their sets differ, the report on the other set is too good.

    Attributes:
        name: The picture that comes later in the data.
        set: Its set.
        first: The earlier picture.
        first_set: Its set.
        similarity: Cosine of their centered embeddings, at most 1.
        conflicting: Whether the two have different labels.
    """

    name: str
    set: str
    first: str
    first_set: str
    similarity: float
    conflicting: bool


@dataclass(frozen=True)
class Suspect:
    """A picture whose label may be wrong: most of the training pictures that are nearest to it have another one.

    Attributes:
        suggestion: The class that has the most votes of those neighbors. The votes of each class are divided by the
            number of its pictures.
        probability: Its share of the votes.
    """

    name: str
    set: str
    label: str
    suggestion: str
    probability: float


@dataclass(frozen=True)
class Findings:
    """What may be wrong with the data, and `warnings` about what the figures can be trusted for."""

    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    near_duplicates: tuple[NearDuplicate, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """A trained head in the store.

    Attributes:
        version: Counted from 1 for each name; never used twice.
        classes: In the order of the outputs.
        weights_digest: Of the network it was trained on; no other network may serve it.
        stages: Unfrozen stages, stored with the head as a difference to those weights.
        feature_stage: Where the head takes its input from the network: `avgpool`, or the stage below `stages`.
        size: Side of the square that the network sees, in pixels.
        complete: False for the best head of a cancelled run.
        bytes: Size of its safetensors file.
        created: ISO 8601, UTC.
        outcome: Its training and its reports.
    """

    name: str
    version: int
    run_id: str
    created: str
    backbone: str
    weights_digest: str
    classes: tuple[str, ...]
    kind: HeadKind
    stages: tuple[str, ...]
    feature_stage: str
    size: int
    complete: bool
    bytes: int
    outcome: Outcome
    findings: Findings = Findings()

    @property
    def accuracy(self) -> float:
        """Of the out-of-fold predictions; 0 where there is no report."""
        report = self.outcome.report()
        return report.accuracy if report else 0.0


@dataclass(frozen=True)
class Result:
    """The run is done: the head, every recipe's outcome side by side, and pictures of them.

    Attributes:
        best: Position of the recipe whose head was kept: the best by out-of-fold predictions.
        feature_seconds: Wall time of the pass through the frozen network.
        fit_seconds: Wall time of everything after it.
        learning_curves: A PNG file.
        confusion_matrix: A PNG file, of the kept head's out-of-fold predictions.
    """

    head: Head
    outcomes: tuple[Outcome, ...]
    best: int
    feature_seconds: float
    fit_seconds: float
    learning_curves: bytes = field(default=b"", repr=False)
    confusion_matrix: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class HeadDetails:
    """A head with its drawings: learning curves, and the confusion matrix of the out-of-fold predictions. PNG files."""

    head: Head
    learning_curves: bytes = field(default=b"", repr=False)
    confusion_matrix: bytes = field(default=b"", repr=False)


Event = Queued | Accepted | Extracting | Skipped | Started | Step | Epoch | RemoteProgress | Reconnecting | Result


@dataclass(frozen=True)
class HeadRef:
    """A head by name and version; version 0 is the newest."""

    name: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}/{self.version}" if self.version else self.name


class ExportFormat(Enum):
    """The file of an exported head."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
