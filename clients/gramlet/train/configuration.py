"""What a training run is asked to do: the data, and the recipes.

Plain frozen dataclasses, shared by the SDK and the server. The defaults here are the service's defaults: a field that a
request leaves unset takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gramlet.folders.rules import TRAIN as TRAIN
from gramlet.folders.rules import VALIDATION as VALIDATION
from gramlet.signatures import checks_calls
from gramlet.types import Picture

OUT_OF_FOLD = "out_of_fold"
"""The name of the report on the training pictures, each predicted by a model that was not trained on it."""


class HeadKind(Enum):
    """Linear(2048, 500) → BatchNorm1d → ReLU → Linear(500, classes); a linear probe; or logistic regression.

    LOGISTIC is a linear probe at the minimum of its loss, with the strength of its regularization chosen by
    out-of-fold predictions. Its epochs go through the strengths from the strongest on; the settings of the optimizer do
    not apply.
    """

    MLP = "mlp"
    LINEAR = "linear"
    LOGISTIC = "logistic"


class Strategy(Enum):
    """What is trained, and in which order.

    HEAD: the head alone, the network frozen. ALL_AT_ONCE: head and unfrozen stages together from the start.
    HEAD_THEN_STAGES: the head first, then both at a lower rate (LP-FT: Kumar et al., ICLR 2022).
    """

    HEAD = "head"
    ALL_AT_ONCE = "all_at_once"
    HEAD_THEN_STAGES = "head_then_stages"


class Optimizer(Enum):
    """The optimizer. L-BFGS is full-batch and for linear probes on the frozen network only."""

    ADAMW = "adamw"
    SGD = "sgd"
    LBFGS = "lbfgs"


class Schedule(Enum):
    """How the learning rate goes on after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


class Metric(Enum):
    """The metric of out-of-fold predictions that early stopping watches and the best epoch is chosen by."""

    LOSS = "loss"
    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"


class ClassWeights(Enum):
    """Weights of the classes in the loss: all 1, or inversely proportional to their number of pictures.

    AUTO: BALANCED if the largest class has three times the pictures of the smallest or more, else NONE.
    """

    AUTO = "auto"
    NONE = "none"
    BALANCED = "balanced"


class Unreadable(Enum):
    """What a picture that cannot be read does to the run."""

    SKIP = "skip"
    FAIL = "fail"


@checks_calls
@dataclass(frozen=True)
class Recipe:
    """How one head is trained.

    Attributes:
        stages: The late stages to unfreeze, such as ("layer4",) or ("layer3", "layer4"): a suffix of layer1..layer4.
        stage_rates: Learning rate of single unfrozen stages.
        stage_learning_rate: Of the last stage. Every earlier one has 0.3 times the rate of the one behind it.
        learning_rate: Of the head. None: 1e-3 for AdamW, 1e-2 for SGD, 1 for L-BFGS.
        epochs: Epochs of the head; None: 15 for an mlp, 60 for a linear probe. For ALL_AT_ONCE, `stage_epochs` counts
            instead.
        head_rate_factor: The head's learning rate in the second phase of HEAD_THEN_STAGES, as a share of the first's.
        warmup_epochs: Epochs in which the learning rate rises. None: one with unfrozen stages, else none.
        patience: Epochs without improvement of `metric` after which training stops. 0: never. With unfrozen stages, at
            most 3.
        update_batch_norm: Let the unfrozen stages' BatchNorm statistics follow the new pictures.
        calibrate: Fit a temperature on out-of-fold predictions (Guo et al., ICML 2017). It is kept only if it improves
            the likelihood of pictures that it was not fitted on.
    """

    kind: HeadKind = HeadKind.MLP
    strategy: Strategy = Strategy.HEAD
    stages: tuple[str, ...] = ()
    stage_rates: Mapping[str, float] = field(default_factory=dict)
    stage_learning_rate: float = 1e-5
    optimizer: Optimizer = Optimizer.ADAMW
    learning_rate: float | None = None
    head_rate_factor: float = 0.1
    epochs: int | None = None
    stage_epochs: int = 6
    batch_size: int = 32
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.COSINE
    warmup_epochs: int | None = None
    metric: Metric = Metric.LOSS
    patience: int = 15
    class_weights: ClassWeights = ClassWeights.AUTO
    label_smoothing: float = 0.0
    update_batch_norm: bool = False
    calibrate: bool = True
    seed: int = 0

    @property
    def title(self) -> str:
        """A short name for tables: `mlp head`, `linear head_then_stages layer4`."""
        return " ".join([self.kind.value, self.strategy.value, *self.stages])


DEFAULT_RECIPES = (Recipe(), Recipe(kind=HeadKind.LOGISTIC))
"""Which is better depends on the pictures: docs/heads.md."""


@dataclass(frozen=True)
class Entry:
    """One picture of a data set, without the picture.

    Attributes:
        name: Unique in the run: the file's path in the data set.
        label: Its class.
        set: `train`, or the name of a set on which heads are only evaluated, such as `val` or `test`.
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
        recipes: One or more; several are trained on the same data and reported side by side. By default an mlp and
            logistic regression.
        entries: The pictures that the client will send. Empty where `dataset` is given.
        dataset: A folder or s3:// URI that the server may read, in ImageFolder layout.
        size: Side of the square that the network sees, in pixels: shorter side to `size`, then a central crop.
        views: Further augmented views of each training picture, cached like the picture itself.
        folds: Folds of the cross-validation on `train`. 0: chosen by the number of pictures. 1: one fifth is held out.
        seed: Of the folds.
        unreadable: What an unreadable picture does to the run.
        keep_on_cancel: Keep the best head so far when the run is cancelled.
    """

    name: str
    recipes: tuple[Recipe, ...] = DEFAULT_RECIPES
    entries: tuple[Entry, ...] = ()
    dataset: str = ""
    size: int = 224
    views: int = 0
    folds: int = 0
    seed: int = 0
    unreadable: Unreadable = Unreadable.SKIP
    keep_on_cancel: bool = False


@dataclass(frozen=True)
class TrainOrder:
    """What is asked of TrainService: a new run, or the run to resume or to watch.

    Attributes:
        configuration: A new run; None to resume or to watch.
        run_id: The id of a new run; empty lets the server choose.
        resume_run_id: The run to resume, or empty.
        watch_run_id: The run to watch, without any influence on it; or empty.
        detached: Whether the run goes on when its caller leaves.
        take_over: Whether to resume the run at once, even if another replica seems to execute it.
        weights_digest: The only network that a new run may use; empty: any.
    """

    configuration: Configuration | None = None
    run_id: str = ""
    resume_run_id: str = ""
    watch_run_id: str = ""
    detached: bool = False
    take_over: bool = False
    weights_digest: str = ""


@dataclass(frozen=True)
class Upload:
    """A picture that the server asked for: its position in the configuration's entries, and the picture.

    `unread` is why the client could not read it; the picture is empty then.
    """

    entry: int
    picture: Picture
    unread: str = ""
