from gramlet.feature.v1 import feature_pb2 as _feature_pb2
from gramlet.run.v1 import run_pb2 as _run_pb2
from gramlet.tensor.v1 import picture_pb2 as _picture_pb2
from gramlet.tensor.v1 import timing_pb2 as _timing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Initial(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INITIAL_UNSPECIFIED: _ClassVar[Initial]
    INITIAL_CONTENT: _ClassVar[Initial]
    INITIAL_STYLE: _ClassVar[Initial]
    INITIAL_NOISE: _ClassVar[Initial]
    INITIAL_GIVEN: _ClassVar[Initial]

class Colors(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLORS_UNSPECIFIED: _ClassVar[Colors]
    COLORS_STYLE: _ClassVar[Colors]
    COLORS_CONTENT_LUMINANCE: _ClassVar[Colors]
    COLORS_CONTENT_HISTOGRAM: _ClassVar[Colors]
INITIAL_UNSPECIFIED: Initial
INITIAL_CONTENT: Initial
INITIAL_STYLE: Initial
INITIAL_NOISE: Initial
INITIAL_GIVEN: Initial
COLORS_UNSPECIFIED: Colors
COLORS_STYLE: Colors
COLORS_CONTENT_LUMINANCE: Colors
COLORS_CONTENT_HISTOGRAM: Colors

class StylizeRequest(_message.Message):
    __slots__ = ("stylization", "resume_run_id", "watch_run_id", "run_id", "preview_every", "preview_side", "state_seconds", "detached", "keep_inputs", "take_over", "weights_digest")
    STYLIZATION_FIELD_NUMBER: _ClassVar[int]
    RESUME_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WATCH_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_SIDE_FIELD_NUMBER: _ClassVar[int]
    STATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    KEEP_INPUTS_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    stylization: Stylization
    resume_run_id: str
    watch_run_id: str
    run_id: str
    preview_every: int
    preview_side: int
    state_seconds: float
    detached: bool
    keep_inputs: bool
    take_over: bool
    weights_digest: str
    def __init__(self, stylization: _Optional[_Union[Stylization, _Mapping]] = ..., resume_run_id: _Optional[str] = ..., watch_run_id: _Optional[str] = ..., run_id: _Optional[str] = ..., preview_every: _Optional[int] = ..., preview_side: _Optional[int] = ..., state_seconds: _Optional[float] = ..., detached: bool = ..., keep_inputs: bool = ..., take_over: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...

class Stylization(_message.Message):
    __slots__ = ("content", "styles", "initial", "settings", "previous_content")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: _picture_pb2.Picture
    styles: _containers.RepeatedCompositeFieldContainer[_feature_pb2.Style]
    initial: _picture_pb2.Picture
    settings: Settings
    previous_content: _picture_pb2.Picture
    def __init__(self, content: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., styles: _Optional[_Iterable[_Union[_feature_pb2.Style, _Mapping]]] = ..., initial: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., previous_content: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ...) -> None: ...

class Settings(_message.Message):
    __slots__ = ("preset", "size", "iterations", "content_stage", "style_stages", "content_weight", "style_weight", "total_variation_weight", "gram_normalization", "stage_balance", "initial", "seed", "optimizer", "learning_rate", "history_size", "line_search", "antialiased", "scales", "style_size", "colors", "momentum")
    PRESET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_STAGE_FIELD_NUMBER: _ClassVar[int]
    STYLE_STAGES_FIELD_NUMBER: _ClassVar[int]
    CONTENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    GRAM_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    STAGE_BALANCE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    LINE_SEARCH_FIELD_NUMBER: _ClassVar[int]
    ANTIALIASED_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    STYLE_SIZE_FIELD_NUMBER: _ClassVar[int]
    COLORS_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    preset: str
    size: int
    iterations: int
    content_stage: str
    style_stages: _containers.RepeatedCompositeFieldContainer[_feature_pb2.StageWeight]
    content_weight: float
    style_weight: float
    total_variation_weight: float
    gram_normalization: _feature_pb2.GramNormalization
    stage_balance: _feature_pb2.StageBalance
    initial: Initial
    seed: int
    optimizer: _feature_pb2.Optimizer
    learning_rate: float
    history_size: int
    line_search: _feature_pb2.LineSearch
    antialiased: bool
    scales: int
    style_size: int
    colors: Colors
    momentum: float
    def __init__(self, preset: _Optional[str] = ..., size: _Optional[int] = ..., iterations: _Optional[int] = ..., content_stage: _Optional[str] = ..., style_stages: _Optional[_Iterable[_Union[_feature_pb2.StageWeight, _Mapping]]] = ..., content_weight: _Optional[float] = ..., style_weight: _Optional[float] = ..., total_variation_weight: _Optional[float] = ..., gram_normalization: _Optional[_Union[_feature_pb2.GramNormalization, str]] = ..., stage_balance: _Optional[_Union[_feature_pb2.StageBalance, str]] = ..., initial: _Optional[_Union[Initial, str]] = ..., seed: _Optional[int] = ..., optimizer: _Optional[_Union[_feature_pb2.Optimizer, str]] = ..., learning_rate: _Optional[float] = ..., history_size: _Optional[int] = ..., line_search: _Optional[_Union[_feature_pb2.LineSearch, str]] = ..., antialiased: bool = ..., scales: _Optional[int] = ..., style_size: _Optional[int] = ..., colors: _Optional[_Union[Colors, str]] = ..., momentum: _Optional[float] = ...) -> None: ...

class StylizeResponse(_message.Message):
    __slots__ = ("run_id", "queued", "started", "iteration", "preview", "checkpoint", "recovered", "result", "adjusted", "progress", "scale_started")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SCALE_STARTED_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    queued: Queued
    started: Started
    iteration: Iteration
    preview: Preview
    checkpoint: Checkpoint
    recovered: Recovered
    result: Result
    adjusted: Adjusted
    progress: _run_pb2.Progress
    scale_started: ScaleStarted
    def __init__(self, run_id: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., iteration: _Optional[_Union[Iteration, _Mapping]] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., recovered: _Optional[_Union[Recovered, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., adjusted: _Optional[_Union[Adjusted, _Mapping]] = ..., progress: _Optional[_Union[_run_pb2.Progress, _Mapping]] = ..., scale_started: _Optional[_Union[ScaleStarted, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("iteration", "height", "width", "settings", "backbone", "weights_digest")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    height: int
    width: int
    settings: Settings
    backbone: str
    weights_digest: str
    def __init__(self, iteration: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., backbone: _Optional[str] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class ScaleStarted(_message.Message):
    __slots__ = ("iteration", "height", "width")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    height: int
    width: int
    def __init__(self, iteration: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class Iteration(_message.Message):
    __slots__ = ("iteration", "loss", "style_loss", "content_loss", "total_variation_loss", "stage_losses", "evaluations", "timing")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STYLE_LOSS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_LOSS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    STAGE_LOSSES_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    loss: float
    style_loss: float
    content_loss: float
    total_variation_loss: float
    stage_losses: _containers.RepeatedCompositeFieldContainer[_feature_pb2.StageLoss]
    evaluations: int
    timing: _timing_pb2.Timing
    def __init__(self, iteration: _Optional[int] = ..., loss: _Optional[float] = ..., style_loss: _Optional[float] = ..., content_loss: _Optional[float] = ..., total_variation_loss: _Optional[float] = ..., stage_losses: _Optional[_Iterable[_Union[_feature_pb2.StageLoss, _Mapping]]] = ..., evaluations: _Optional[int] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("iteration", "jpeg")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    JPEG_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    jpeg: bytes
    def __init__(self, iteration: _Optional[int] = ..., jpeg: _Optional[bytes] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("iteration",)
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    def __init__(self, iteration: _Optional[int] = ...) -> None: ...

class Recovered(_message.Message):
    __slots__ = ("reason", "iteration", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Recovered.Reason]
        REASON_DIVERGED: _ClassVar[Recovered.Reason]
        REASON_RECONNECTED: _ClassVar[Recovered.Reason]
    REASON_UNSPECIFIED: Recovered.Reason
    REASON_DIVERGED: Recovered.Reason
    REASON_RECONNECTED: Recovered.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: Recovered.Reason
    iteration: int
    message: str
    def __init__(self, reason: _Optional[_Union[Recovered.Reason, str]] = ..., iteration: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("png", "iteration", "loss", "style_loss", "content_loss", "timing", "weights_digest")
    PNG_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STYLE_LOSS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_LOSS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    iteration: int
    loss: float
    style_loss: float
    content_loss: float
    timing: _timing_pb2.Timing
    weights_digest: str
    def __init__(self, png: _Optional[bytes] = ..., iteration: _Optional[int] = ..., loss: _Optional[float] = ..., style_loss: _Optional[float] = ..., content_loss: _Optional[float] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class Adjusted(_message.Message):
    __slots__ = ("iteration", "settings", "number")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    settings: Settings
    number: int
    def __init__(self, iteration: _Optional[int] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

class AdjustRequest(_message.Message):
    __slots__ = ("run_id", "adjustment")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    adjustment: Adjustment
    def __init__(self, run_id: _Optional[str] = ..., adjustment: _Optional[_Union[Adjustment, _Mapping]] = ...) -> None: ...

class Adjustment(_message.Message):
    __slots__ = ("content_weight", "style_weight", "total_variation_weight", "style_stages")
    CONTENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_STAGES_FIELD_NUMBER: _ClassVar[int]
    content_weight: float
    style_weight: float
    total_variation_weight: float
    style_stages: _containers.RepeatedCompositeFieldContainer[_feature_pb2.StageWeight]
    def __init__(self, content_weight: _Optional[float] = ..., style_weight: _Optional[float] = ..., total_variation_weight: _Optional[float] = ..., style_stages: _Optional[_Iterable[_Union[_feature_pb2.StageWeight, _Mapping]]] = ...) -> None: ...

class AdjustResponse(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: Settings
    def __init__(self, settings: _Optional[_Union[Settings, _Mapping]] = ...) -> None: ...

class SweepRequest(_message.Message):
    __slots__ = ("stylization", "resume_run_id", "watch_run_id", "run_id", "ratios", "deepest_stages", "detached", "keep_inputs", "take_over", "weights_digest")
    STYLIZATION_FIELD_NUMBER: _ClassVar[int]
    RESUME_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WATCH_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RATIOS_FIELD_NUMBER: _ClassVar[int]
    DEEPEST_STAGES_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    KEEP_INPUTS_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    stylization: Stylization
    resume_run_id: str
    watch_run_id: str
    run_id: str
    ratios: _containers.RepeatedScalarFieldContainer[float]
    deepest_stages: _containers.RepeatedScalarFieldContainer[str]
    detached: bool
    keep_inputs: bool
    take_over: bool
    weights_digest: str
    def __init__(self, stylization: _Optional[_Union[Stylization, _Mapping]] = ..., resume_run_id: _Optional[str] = ..., watch_run_id: _Optional[str] = ..., run_id: _Optional[str] = ..., ratios: _Optional[_Iterable[float]] = ..., deepest_stages: _Optional[_Iterable[str]] = ..., detached: bool = ..., keep_inputs: bool = ..., take_over: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...

class SweepResponse(_message.Message):
    __slots__ = ("run_id", "queued", "started", "cell", "result", "progress")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    queued: Queued
    started: SweepStarted
    cell: SweepCell
    result: SweepResult
    progress: _run_pb2.Progress
    def __init__(self, run_id: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., started: _Optional[_Union[SweepStarted, _Mapping]] = ..., cell: _Optional[_Union[SweepCell, _Mapping]] = ..., result: _Optional[_Union[SweepResult, _Mapping]] = ..., progress: _Optional[_Union[_run_pb2.Progress, _Mapping]] = ...) -> None: ...

class SweepStarted(_message.Message):
    __slots__ = ("ratios", "deepest_stages", "settings", "weights_digest")
    RATIOS_FIELD_NUMBER: _ClassVar[int]
    DEEPEST_STAGES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ratios: _containers.RepeatedScalarFieldContainer[float]
    deepest_stages: _containers.RepeatedScalarFieldContainer[str]
    settings: Settings
    weights_digest: str
    def __init__(self, ratios: _Optional[_Iterable[float]] = ..., deepest_stages: _Optional[_Iterable[str]] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class SweepCell(_message.Message):
    __slots__ = ("row", "column", "deepest_stage", "ratio", "event")
    ROW_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DEEPEST_STAGE_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    row: int
    column: int
    deepest_stage: str
    ratio: float
    event: StylizeResponse
    def __init__(self, row: _Optional[int] = ..., column: _Optional[int] = ..., deepest_stage: _Optional[str] = ..., ratio: _Optional[float] = ..., event: _Optional[_Union[StylizeResponse, _Mapping]] = ...) -> None: ...

class SweepResult(_message.Message):
    __slots__ = ("png", "weights_digest")
    PNG_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    weights_digest: str
    def __init__(self, png: _Optional[bytes] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("running", "running_limit", "queued", "queue_limit", "presets", "features", "server_version", "preset_settings")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_LIMIT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    PRESETS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PRESET_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    running: int
    running_limit: int
    queued: int
    queue_limit: int
    presets: _containers.RepeatedScalarFieldContainer[str]
    features: str
    server_version: str
    preset_settings: _containers.RepeatedCompositeFieldContainer[Settings]
    def __init__(self, running: _Optional[int] = ..., running_limit: _Optional[int] = ..., queued: _Optional[int] = ..., queue_limit: _Optional[int] = ..., presets: _Optional[_Iterable[str]] = ..., features: _Optional[str] = ..., server_version: _Optional[str] = ..., preset_settings: _Optional[_Iterable[_Union[Settings, _Mapping]]] = ...) -> None: ...
