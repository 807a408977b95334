"""What TrainService talks about: recipes, runs and their events, heads, reports, predictions.

Plain frozen dataclasses, shared by the SDK and the server like those of `gramlet.types`. The defaults here are the
service's defaults: `gramlet.train.wire` fills what a request leaves unset from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gramlet.types import Picture, Timing

TRAIN = "train"
VALIDATION = "val"


class HeadKind(Enum):
    """Linear(2048, 500) → BatchNorm1d → ReLU → Linear(500, classes), or a linear probe."""

    MLP = "mlp"
    LINEAR = "linear"


class Strategy(Enum):
    """What is trained, and in which order.

    HEAD: the head alone, the network frozen. ALL_AT_ONCE: head and unfrozen stages together from the start.
    HEAD_THEN_STAGES: the head first, then both at a lower rate (LP-FT: Kumar et al., ICLR 2022).
    """

    HEAD = "head"
    ALL_AT_ONCE = "all_at_once"
    HEAD_THEN_STAGES = "head_then_stages"


class Optimizer(Enum):
    """The optimiser. L-BFGS is full-batch and for linear probes on the frozen network only."""

    ADAMW = "adamw"
    SGD = "sgd"
    LBFGS = "lbfgs"


class Schedule(Enum):
    """How the learning rate goes on after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Metric(Enum):
    """The validation metric that early stopping watches and the best epoch is chosen by."""

    LOSS = "loss"
    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"


class ClassWeights(Enum):
    """Weights of the classes in the loss: all 1, or inversely proportional to their number of pictures."""

    NONE = "none"
    BALANCED = "balanced"


class Unreadable(Enum):
    """What a picture that cannot be read does to the run."""

    SKIP = "skip"
    FAIL = "fail"


@dataclass(frozen=True)
class Recipe:
    """How one head is trained.

    Attributes:
        stages: The late stages to unfreeze, such as ("layer4",) or ("layer3", "layer4"): a suffix of layer1..layer4.
        stage_rates: Learning rate of each unfrozen stage; `stage_learning_rate` where a stage is not named.
        learning_rate: Of the head. None: 1e-3 for AdamW, 1e-2 for SGD, 1 for L-BFGS.
        epochs: Epochs of the head. For ALL_AT_ONCE, of head and stages together, `stage_epochs` counts instead.
        head_rate_factor: The head's learning rate in the second phase of HEAD_THEN_STAGES, as a share of the first's.
        patience: Epochs without improvement of `metric` after which training stops. 0: never.
        update_batch_norm: Let the unfrozen stages' BatchNorm statistics follow the new pictures.
        calibrate: Fit a temperature on the validation set (Guo et al., ICML 2017).
    """

    kind: HeadKind = HeadKind.MLP
    strategy: Strategy = Strategy.HEAD
    stages: tuple[str, ...] = ()
    stage_rates: Mapping[str, float] = field(default_factory=dict)
    stage_learning_rate: float = 1e-4
    optimizer: Optimizer = Optimizer.ADAMW
    learning_rate: float | None = None
    head_rate_factor: float = 0.1
    epochs: int = 60
    stage_epochs: int = 6
    batch_size: int = 32
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.COSINE
    warmup_epochs: int = 0
    metric: Metric = Metric.LOSS
    patience: int = 15
    class_weights: ClassWeights = ClassWeights.NONE
    label_smoothing: float = 0.0
    update_batch_norm: bool = False
    calibrate: bool = True
    seed: int = 0

    @property
    def title(self) -> str:
        """A short name for tables: `mlp head`, `linear head_then_stages layer4`."""
        return " ".join([self.kind.value, self.strategy.value, *self.stages])


@dataclass(frozen=True)
class Entry:
    """One picture of a data set, without the picture.

    Attributes:
        name: Unique in the run: the file's path in the data set.
        label: Its class.
        set: `train`, `val`, or any further set on which the heads are reported.
        sha256: Of the encoded file, hexadecimal; empty where not known. Pictures that the server already knows the
            features of are not asked for.
    """

    name: str
    label: str
    set: str = TRAIN
    sha256: str = ""


@dataclass(frozen=True)
class Configuration:
    """A training run: the data, and one recipe or several to compare.

    Attributes:
        name: Of the head. The best recipe's head becomes its next version.
        recipes: One or more; several are trained on the same data and reported side by side.
        entries: The pictures that the client will send. Empty where `dataset` is given.
        dataset: A folder or s3:// URI that the server may read, in ImageFolder layout.
        size: Side of the square that the network sees, in pixels: shorter side to `size`, then a central crop.
        views: Further augmented views of each training picture, cached like the picture itself.
        validation_fraction: Share of `train` that becomes `val` where no `val` is given; stratified.
        seed: Of the split.
        unreadable: What an unreadable picture does to the run.
        keep_on_cancel: Keep the best head so far when the run is cancelled.
    """

    name: str
    recipes: tuple[Recipe, ...] = (Recipe(),)
    entries: tuple[Entry, ...] = ()
    dataset: str = ""
    size: int = 224
    views: int = 0
    validation_fraction: float = 0.2
    seed: int = 0
    unreadable: Unreadable = Unreadable.SKIP
    keep_on_cancel: bool = False


@dataclass(frozen=True)
class TrainOrder:
    """What is asked of TrainService: a new run, by a name of its own or one that the server chooses; or to resume."""

    configuration: Configuration | None = None
    run_id: str = ""
    resume_run_id: str = ""


@dataclass(frozen=True)
class Upload:
    """A picture that the server asked for: its position in the configuration's entries, and the picture."""

    entry: int
    picture: Picture


@dataclass(frozen=True)
class Queued:
    """The run waits for its turn: so many runs are before it; 0: it is the next."""

    position: int


@dataclass(frozen=True)
class Accepted:
    """The run is valid and exists: with its run id it can be resumed.

    Attributes:
        pictures: In the data set.
        wanted: Positions, in the configuration's entries, of the pictures to send.
        names: The wanted entries' names, in the same order.
    """

    run_id: str
    pictures: int
    wanted: tuple[int, ...]
    names: tuple[str, ...]


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
    """A batch of an epoch is done. Sent where epochs are long: with unfrozen stages."""

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
        loss: Mean training loss, with class weights and label smoothing.
        validation_loss: Mean cross-entropy on the validation set.
        rates: Learning rate of the head (`head`) and of each unfrozen stage.
        best: Whether this is the best epoch so far.
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
class ClassReport:
    """How one class fares. Precision and recall are 0 where nothing was predicted or nothing is there."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Report:
    """How a head does on one set.

    Attributes:
        set: `val`, or a further named set.
        loss: Mean cross-entropy of the calibrated probabilities.
        top: Share of pictures whose class is among the k most probable, by k.
        macro_f1: Mean F1 of the classes present.
        calibration_error: Expected calibration error, 15 bins of equal width (Guo et al., ICML 2017).
        confusion: confusion[i][j]: pictures of class i taken for class j.
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


@dataclass(frozen=True)
class Outcome:
    """What one recipe came to: its reports by set, its history, and the wall time of its epochs."""

    recipe: Recipe
    reports: tuple[Report, ...]
    history: tuple[Epoch, ...]
    best_epoch: int
    temperature: float
    seconds: float

    def report(self, name: str = VALIDATION) -> Report | None:
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
class Suspect:
    """A training or validation picture whose nearest neighbours all bear another label: perhaps mislabelled.

    Attributes:
        share: Share of its nearest neighbours that bear the suggested label.
    """

    name: str
    set: str
    label: str
    suggestion: str
    share: float


@dataclass(frozen=True)
class Findings:
    """What is odd about the data."""

    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    suspects: tuple[Suspect, ...] = ()


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
        """On the validation set; 0 where there is no report."""
        report = self.outcome.report()
        return report.accuracy if report else 0.0


@dataclass(frozen=True)
class Result:
    """The run is done: the head, every recipe's outcome side by side, and pictures of them.

    Attributes:
        best: Position of the recipe whose head was kept: the best on the validation set.
        feature_seconds: Wall time of the pass through the frozen network.
        fit_seconds: Wall time of everything after it.
        learning_curves: A PNG file.
        confusion_matrix: A PNG file, of the kept head on the validation set.
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
    """A head with its drawings: learning curves, and the confusion matrix of the validation set. PNG files."""

    head: Head
    learning_curves: bytes = field(default=b"", repr=False)
    confusion_matrix: bytes = field(default=b"", repr=False)


Event = Queued | Accepted | Extracting | Skipped | Started | Step | Epoch | Result


@dataclass(frozen=True)
class HeadRef:
    """A head by name and version; version 0 is the newest."""

    name: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}/{self.version}" if self.version else self.name


@dataclass(frozen=True)
class ClassProbability:
    """A class and its calibrated probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first."""

    classes: tuple[ClassProbability, ...]
    timing: Timing = field(default_factory=Timing)

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0].label

    @property
    def probability(self) -> float:
        """The probability of the most probable class."""
        return self.classes[0].probability

    def top(self, k: int) -> tuple[ClassProbability, ...]:
        """The k most probable classes, as far as the call asked for them."""
        return self.classes[:k]


class ExportFormat(Enum):
    """The file of an exported head."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
