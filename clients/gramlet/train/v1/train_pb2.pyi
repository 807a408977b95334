from gramlet.run.v1 import run_pb2 as _run_pb2
from gramlet.tensor.v1 import picture_pb2 as _picture_pb2
from gramlet.tensor.v1 import tensor_pb2 as _tensor_pb2
from gramlet.tensor.v1 import timing_pb2 as _timing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Unreadable(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNREADABLE_UNSPECIFIED: _ClassVar[Unreadable]
    UNREADABLE_SKIP: _ClassVar[Unreadable]
    UNREADABLE_FAIL: _ClassVar[Unreadable]

class HeadKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEAD_KIND_UNSPECIFIED: _ClassVar[HeadKind]
    HEAD_KIND_MLP: _ClassVar[HeadKind]
    HEAD_KIND_LINEAR: _ClassVar[HeadKind]
    HEAD_KIND_LOGISTIC: _ClassVar[HeadKind]

class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRATEGY_UNSPECIFIED: _ClassVar[Strategy]
    STRATEGY_HEAD: _ClassVar[Strategy]
    STRATEGY_ALL_AT_ONCE: _ClassVar[Strategy]
    STRATEGY_HEAD_THEN_STAGES: _ClassVar[Strategy]

class Optimizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_UNSPECIFIED: _ClassVar[Optimizer]
    OPTIMIZER_ADAMW: _ClassVar[Optimizer]
    OPTIMIZER_SGD: _ClassVar[Optimizer]
    OPTIMIZER_LBFGS: _ClassVar[Optimizer]

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]
    SCHEDULE_LINEAR: _ClassVar[Schedule]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_LOSS: _ClassVar[Metric]
    METRIC_ACCURACY: _ClassVar[Metric]
    METRIC_MACRO_F1: _ClassVar[Metric]

class ClassWeights(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLASS_WEIGHTS_UNSPECIFIED: _ClassVar[ClassWeights]
    CLASS_WEIGHTS_NONE: _ClassVar[ClassWeights]
    CLASS_WEIGHTS_BALANCED: _ClassVar[ClassWeights]
    CLASS_WEIGHTS_AUTO: _ClassVar[ClassWeights]

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_SAFETENSORS: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX: _ClassVar[ExportFormat]
UNREADABLE_UNSPECIFIED: Unreadable
UNREADABLE_SKIP: Unreadable
UNREADABLE_FAIL: Unreadable
HEAD_KIND_UNSPECIFIED: HeadKind
HEAD_KIND_MLP: HeadKind
HEAD_KIND_LINEAR: HeadKind
HEAD_KIND_LOGISTIC: HeadKind
STRATEGY_UNSPECIFIED: Strategy
STRATEGY_HEAD: Strategy
STRATEGY_ALL_AT_ONCE: Strategy
STRATEGY_HEAD_THEN_STAGES: Strategy
OPTIMIZER_UNSPECIFIED: Optimizer
OPTIMIZER_ADAMW: Optimizer
OPTIMIZER_SGD: Optimizer
OPTIMIZER_LBFGS: Optimizer
SCHEDULE_UNSPECIFIED: Schedule
SCHEDULE_CONSTANT: Schedule
SCHEDULE_COSINE: Schedule
SCHEDULE_LINEAR: Schedule
METRIC_UNSPECIFIED: Metric
METRIC_LOSS: Metric
METRIC_ACCURACY: Metric
METRIC_MACRO_F1: Metric
CLASS_WEIGHTS_UNSPECIFIED: ClassWeights
CLASS_WEIGHTS_NONE: ClassWeights
CLASS_WEIGHTS_BALANCED: ClassWeights
CLASS_WEIGHTS_AUTO: ClassWeights
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_SAFETENSORS: ExportFormat
EXPORT_FORMAT_ONNX: ExportFormat

class TrainRequest(_message.Message):
    __slots__ = ("configuration", "resume_run_id", "watch_run_id", "picture", "detached", "take_over", "weights_digest")
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    RESUME_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WATCH_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    configuration: Configuration
    resume_run_id: str
    watch_run_id: str
    picture: LabelledPicture
    detached: bool
    take_over: bool
    weights_digest: str
    def __init__(self, configuration: _Optional[_Union[Configuration, _Mapping]] = ..., resume_run_id: _Optional[str] = ..., watch_run_id: _Optional[str] = ..., picture: _Optional[_Union[LabelledPicture, _Mapping]] = ..., detached: bool = ..., take_over: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...

class LabelledPicture(_message.Message):
    __slots__ = ("entry", "picture", "unread")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    entry: int
    picture: _picture_pb2.Picture
    unread: str
    def __init__(self, entry: _Optional[int] = ..., picture: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., unread: _Optional[str] = ...) -> None: ...

class Configuration(_message.Message):
    __slots__ = ("name", "run_id", "recipes", "entries", "dataset_uri", "size", "views", "folds", "seed", "unreadable", "keep_on_cancel")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DATASET_URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    FOLDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    KEEP_ON_CANCEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    run_id: str
    recipes: _containers.RepeatedCompositeFieldContainer[Recipe]
    entries: Entries
    dataset_uri: str
    size: int
    views: int
    folds: int
    seed: int
    unreadable: Unreadable
    keep_on_cancel: bool
    def __init__(self, name: _Optional[str] = ..., run_id: _Optional[str] = ..., recipes: _Optional[_Iterable[_Union[Recipe, _Mapping]]] = ..., entries: _Optional[_Union[Entries, _Mapping]] = ..., dataset_uri: _Optional[str] = ..., size: _Optional[int] = ..., views: _Optional[int] = ..., folds: _Optional[int] = ..., seed: _Optional[int] = ..., unreadable: _Optional[_Union[Unreadable, str]] = ..., keep_on_cancel: bool = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("name", "label", "set", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    set: str
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., set: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Recipe(_message.Message):
    __slots__ = ("kind", "strategy", "stages", "stage_rates", "stage_learning_rate", "optimizer", "learning_rate", "head_rate_factor", "epochs", "stage_epochs", "batch_size", "weight_decay", "schedule", "warmup_epochs", "metric", "patience", "class_weights", "label_smoothing", "update_batch_norm", "calibrate", "seed")
    class StageRatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STAGE_RATES_FIELD_NUMBER: _ClassVar[int]
    STAGE_LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    HEAD_RATE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STAGE_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    CLASS_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    UPDATE_BATCH_NORM_FIELD_NUMBER: _ClassVar[int]
    CALIBRATE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    kind: HeadKind
    strategy: Strategy
    stages: _containers.RepeatedScalarFieldContainer[str]
    stage_rates: _containers.ScalarMap[str, float]
    stage_learning_rate: float
    optimizer: Optimizer
    learning_rate: float
    head_rate_factor: float
    epochs: int
    stage_epochs: int
    batch_size: int
    weight_decay: float
    schedule: Schedule
    warmup_epochs: int
    metric: Metric
    patience: int
    class_weights: ClassWeights
    label_smoothing: float
    update_batch_norm: bool
    calibrate: bool
    seed: int
    def __init__(self, kind: _Optional[_Union[HeadKind, str]] = ..., strategy: _Optional[_Union[Strategy, str]] = ..., stages: _Optional[_Iterable[str]] = ..., stage_rates: _Optional[_Mapping[str, float]] = ..., stage_learning_rate: _Optional[float] = ..., optimizer: _Optional[_Union[Optimizer, str]] = ..., learning_rate: _Optional[float] = ..., head_rate_factor: _Optional[float] = ..., epochs: _Optional[int] = ..., stage_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., weight_decay: _Optional[float] = ..., schedule: _Optional[_Union[Schedule, str]] = ..., warmup_epochs: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., patience: _Optional[int] = ..., class_weights: _Optional[_Union[ClassWeights, str]] = ..., label_smoothing: _Optional[float] = ..., update_batch_norm: bool = ..., calibrate: bool = ..., seed: _Optional[int] = ...) -> None: ...

class TrainResponse(_message.Message):
    __slots__ = ("run_id", "queued", "accepted", "extracting", "skipped", "started", "step", "epoch", "result", "progress")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    EXTRACTING_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    queued: Queued
    accepted: Accepted
    extracting: Extracting
    skipped: Skipped
    started: Started
    step: Step
    epoch: Epoch
    result: Result
    progress: _run_pb2.Progress
    def __init__(self, run_id: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., extracting: _Optional[_Union[Extracting, _Mapping]] = ..., skipped: _Optional[_Union[Skipped, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., epoch: _Optional[_Union[Epoch, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., progress: _Optional[_Union[_run_pb2.Progress, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("pictures", "wanted", "names", "weights_digest")
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    pictures: int
    wanted: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    weights_digest: str
    def __init__(self, pictures: _Optional[int] = ..., wanted: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[str]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class Extracting(_message.Message):
    __slots__ = ("done", "total", "cached", "seconds_left")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    cached: int
    seconds_left: float
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ..., cached: _Optional[int] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class Skipped(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("recipe", "epoch", "title", "classes", "sets")
    class SetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    recipe: int
    epoch: int
    title: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    sets: _containers.ScalarMap[str, int]
    def __init__(self, recipe: _Optional[int] = ..., epoch: _Optional[int] = ..., title: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., sets: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("recipe", "epoch", "batch", "batches")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    recipe: int
    epoch: int
    batch: int
    batches: int
    def __init__(self, recipe: _Optional[int] = ..., epoch: _Optional[int] = ..., batch: _Optional[int] = ..., batches: _Optional[int] = ...) -> None: ...

class Epoch(_message.Message):
    __slots__ = ("recipe", "phase", "epoch", "epochs", "loss", "validation_loss", "accuracy", "macro_f1", "rates", "best", "seconds", "seconds_left")
    class RatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    MACRO_F1_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    recipe: int
    phase: str
    epoch: int
    epochs: int
    loss: float
    validation_loss: float
    accuracy: float
    macro_f1: float
    rates: _containers.ScalarMap[str, float]
    best: bool
    seconds: float
    seconds_left: float
    def __init__(self, recipe: _Optional[int] = ..., phase: _Optional[str] = ..., epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., macro_f1: _Optional[float] = ..., rates: _Optional[_Mapping[str, float]] = ..., best: bool = ..., seconds: _Optional[float] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class ClassReport(_message.Message):
    __slots__ = ("label", "precision", "recall", "f1", "support")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    F1_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    def __init__(self, label: _Optional[str] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., f1: _Optional[float] = ..., support: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("set", "pictures", "loss", "accuracy", "top", "macro_f1", "calibration_error", "classes", "confusion", "accuracy_low", "accuracy_high")
    class TopEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    SET_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    MACRO_F1_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ERROR_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_LOW_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_HIGH_FIELD_NUMBER: _ClassVar[int]
    set: str
    pictures: int
    loss: float
    accuracy: float
    top: _containers.ScalarMap[int, float]
    macro_f1: float
    calibration_error: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassReport]
    confusion: _containers.RepeatedScalarFieldContainer[int]
    accuracy_low: float
    accuracy_high: float
    def __init__(self, set: _Optional[str] = ..., pictures: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., top: _Optional[_Mapping[int, float]] = ..., macro_f1: _Optional[float] = ..., calibration_error: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassReport, _Mapping]]] = ..., confusion: _Optional[_Iterable[int]] = ..., accuracy_low: _Optional[float] = ..., accuracy_high: _Optional[float] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("recipe", "reports", "history", "best_epoch", "temperature", "seconds")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    recipe: Recipe
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    history: _containers.RepeatedCompositeFieldContainer[Epoch]
    best_epoch: int
    temperature: float
    seconds: float
    def __init__(self, recipe: _Optional[_Union[Recipe, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[Epoch, _Mapping]]] = ..., best_epoch: _Optional[int] = ..., temperature: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...

class Duplicate(_message.Message):
    __slots__ = ("name", "first", "conflicting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    CONFLICTING_FIELD_NUMBER: _ClassVar[int]
    name: str
    first: str
    conflicting: bool
    def __init__(self, name: _Optional[str] = ..., first: _Optional[str] = ..., conflicting: bool = ...) -> None: ...

class NearDuplicate(_message.Message):
    __slots__ = ("name", "set", "first", "first_set", "similarity", "conflicting")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    FIRST_SET_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    CONFLICTING_FIELD_NUMBER: _ClassVar[int]
    name: str
    set: str
    first: str
    first_set: str
    similarity: float
    conflicting: bool
    def __init__(self, name: _Optional[str] = ..., set: _Optional[str] = ..., first: _Optional[str] = ..., first_set: _Optional[str] = ..., similarity: _Optional[float] = ..., conflicting: bool = ...) -> None: ...

class Suspect(_message.Message):
    __slots__ = ("name", "set", "label", "suggestion", "probability")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    set: str
    label: str
    suggestion: str
    probability: float
    def __init__(self, name: _Optional[str] = ..., set: _Optional[str] = ..., label: _Optional[str] = ..., suggestion: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Findings(_message.Message):
    __slots__ = ("skipped", "duplicates", "suspects", "near_duplicates", "warnings")
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    NEAR_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    skipped: _containers.RepeatedCompositeFieldContainer[Skipped]
    duplicates: _containers.RepeatedCompositeFieldContainer[Duplicate]
    suspects: _containers.RepeatedCompositeFieldContainer[Suspect]
    near_duplicates: _containers.RepeatedCompositeFieldContainer[NearDuplicate]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, skipped: _Optional[_Iterable[_Union[Skipped, _Mapping]]] = ..., duplicates: _Optional[_Iterable[_Union[Duplicate, _Mapping]]] = ..., suspects: _Optional[_Iterable[_Union[Suspect, _Mapping]]] = ..., near_duplicates: _Optional[_Iterable[_Union[NearDuplicate, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("name", "version", "run_id", "created", "backbone", "weights_digest", "classes", "kind", "stages", "feature_stage", "size", "complete", "bytes", "outcome", "findings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_STAGE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    run_id: str
    created: str
    backbone: str
    weights_digest: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    kind: HeadKind
    stages: _containers.RepeatedScalarFieldContainer[str]
    feature_stage: str
    size: int
    complete: bool
    bytes: int
    outcome: Outcome
    findings: Findings
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., run_id: _Optional[str] = ..., created: _Optional[str] = ..., backbone: _Optional[str] = ..., weights_digest: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[HeadKind, str]] = ..., stages: _Optional[_Iterable[str]] = ..., feature_stage: _Optional[str] = ..., size: _Optional[int] = ..., complete: bool = ..., bytes: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., findings: _Optional[_Union[Findings, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("head", "outcomes", "best", "feature_seconds", "fit_seconds", "learning_curves", "confusion_matrix")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_CURVES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    head: Head
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    best: int
    feature_seconds: float
    fit_seconds: float
    learning_curves: bytes
    confusion_matrix: bytes
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., best: _Optional[int] = ..., feature_seconds: _Optional[float] = ..., fit_seconds: _Optional[float] = ..., learning_curves: _Optional[bytes] = ..., confusion_matrix: _Optional[bytes] = ...) -> None: ...

class HeadRef(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("head", "pictures", "top_k", "coverage", "heat_maps", "weights_digest")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAPS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    head: HeadRef
    pictures: _containers.RepeatedCompositeFieldContainer[_picture_pb2.Picture]
    top_k: int
    coverage: float
    heat_maps: bool
    weights_digest: str
    def __init__(self, head: _Optional[_Union[HeadRef, _Mapping]] = ..., pictures: _Optional[_Iterable[_Union[_picture_pb2.Picture, _Mapping]]] = ..., top_k: _Optional[int] = ..., coverage: _Optional[float] = ..., heat_maps: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...

class ClassProbability(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("classes", "timing", "prediction_set", "typicality", "heat_map", "weights_digest")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_SET_FIELD_NUMBER: _ClassVar[int]
    TYPICALITY_FIELD_NUMBER: _ClassVar[int]
    HEAT_MAP_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[ClassProbability]
    timing: _timing_pb2.Timing
    prediction_set: _containers.RepeatedScalarFieldContainer[str]
    typicality: float
    heat_map: _tensor_pb2.Tensor
    weights_digest: str
    def __init__(self, classes: _Optional[_Iterable[_Union[ClassProbability, _Mapping]]] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ..., prediction_set: _Optional[_Iterable[str]] = ..., typicality: _Optional[float] = ..., heat_map: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class PredictResult(_message.Message):
    __slots__ = ("prediction", "error")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    error: _picture_pb2.PictureError
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("results", "head")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PredictResult]
    head: HeadRef
    def __init__(self, results: _Optional[_Iterable[_Union[PredictResult, _Mapping]]] = ..., head: _Optional[_Union[HeadRef, _Mapping]] = ...) -> None: ...

class GetHeadRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: HeadRef
    def __init__(self, head: _Optional[_Union[HeadRef, _Mapping]] = ...) -> None: ...

class GetHeadResponse(_message.Message):
    __slots__ = ("head", "learning_curves", "confusion_matrix")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    LEARNING_CURVES_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_MATRIX_FIELD_NUMBER: _ClassVar[int]
    head: Head
    learning_curves: bytes
    confusion_matrix: bytes
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., learning_curves: _Optional[bytes] = ..., confusion_matrix: _Optional[bytes] = ...) -> None: ...

class ListHeadsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListHeadsResponse(_message.Message):
    __slots__ = ("heads",)
    HEADS_FIELD_NUMBER: _ClassVar[int]
    heads: _containers.RepeatedCompositeFieldContainer[Head]
    def __init__(self, heads: _Optional[_Iterable[_Union[Head, _Mapping]]] = ...) -> None: ...

class DeleteHeadRequest(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: HeadRef
    def __init__(self, head: _Optional[_Union[HeadRef, _Mapping]] = ...) -> None: ...

class DeleteHeadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportHeadRequest(_message.Message):
    __slots__ = ("head", "format", "with_backbone")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WITH_BACKBONE_FIELD_NUMBER: _ClassVar[int]
    head: HeadRef
    format: ExportFormat
    with_backbone: bool
    def __init__(self, head: _Optional[_Union[HeadRef, _Mapping]] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., with_backbone: bool = ...) -> None: ...

class ExportHeadResponse(_message.Message):
    __slots__ = ("chunk", "total_bytes")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    total_bytes: int
    def __init__(self, chunk: _Optional[bytes] = ..., total_bytes: _Optional[int] = ...) -> None: ...
