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

class GramNormalization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRAM_NORMALIZATION_UNSPECIFIED: _ClassVar[GramNormalization]
    GRAM_NORMALIZATION_NONE: _ClassVar[GramNormalization]
    GRAM_NORMALIZATION_POSITIONS: _ClassVar[GramNormalization]
    GRAM_NORMALIZATION_ELEMENTS: _ClassVar[GramNormalization]

class StageBalance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_BALANCE_UNSPECIFIED: _ClassVar[StageBalance]
    STAGE_BALANCE_NONE: _ClassVar[StageBalance]
    STAGE_BALANCE_CONTENT: _ClassVar[StageBalance]

class Optimizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_UNSPECIFIED: _ClassVar[Optimizer]
    OPTIMIZER_LBFGS: _ClassVar[Optimizer]
    OPTIMIZER_ADAM: _ClassVar[Optimizer]
    OPTIMIZER_GRADIENT_DESCENT: _ClassVar[Optimizer]

class LineSearch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINE_SEARCH_UNSPECIFIED: _ClassVar[LineSearch]
    LINE_SEARCH_NONE: _ClassVar[LineSearch]
    LINE_SEARCH_STRONG_WOLFE: _ClassVar[LineSearch]

class DescentEnding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESCENT_ENDING_UNSPECIFIED: _ClassVar[DescentEnding]
    DESCENT_ENDING_BEST: _ClassVar[DescentEnding]
    DESCENT_ENDING_PICTURE: _ClassVar[DescentEnding]
    DESCENT_ENDING_STATE: _ClassVar[DescentEnding]

class Projection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROJECTION_UNSPECIFIED: _ClassVar[Projection]
    PROJECTION_NONE: _ClassVar[Projection]
    PROJECTION_DECONVNET: _ClassVar[Projection]
    PROJECTION_GUIDED: _ClassVar[Projection]

class PatchField(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PATCH_FIELD_UNSPECIFIED: _ClassVar[PatchField]
    PATCH_FIELD_EFFECTIVE: _ClassVar[PatchField]
    PATCH_FIELD_THEORETICAL: _ClassVar[PatchField]
GRAM_NORMALIZATION_UNSPECIFIED: GramNormalization
GRAM_NORMALIZATION_NONE: GramNormalization
GRAM_NORMALIZATION_POSITIONS: GramNormalization
GRAM_NORMALIZATION_ELEMENTS: GramNormalization
STAGE_BALANCE_UNSPECIFIED: StageBalance
STAGE_BALANCE_NONE: StageBalance
STAGE_BALANCE_CONTENT: StageBalance
OPTIMIZER_UNSPECIFIED: Optimizer
OPTIMIZER_LBFGS: Optimizer
OPTIMIZER_ADAM: Optimizer
OPTIMIZER_GRADIENT_DESCENT: Optimizer
LINE_SEARCH_UNSPECIFIED: LineSearch
LINE_SEARCH_NONE: LineSearch
LINE_SEARCH_STRONG_WOLFE: LineSearch
DESCENT_ENDING_UNSPECIFIED: DescentEnding
DESCENT_ENDING_BEST: DescentEnding
DESCENT_ENDING_PICTURE: DescentEnding
DESCENT_ENDING_STATE: DescentEnding
PROJECTION_UNSPECIFIED: Projection
PROJECTION_NONE: Projection
PROJECTION_DECONVNET: Projection
PROJECTION_GUIDED: Projection
PATCH_FIELD_UNSPECIFIED: PatchField
PATCH_FIELD_EFFECTIVE: PatchField
PATCH_FIELD_THEORETICAL: PatchField

class GetModelRequest(_message.Message):
    __slots__ = ("weights_digest",)
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    weights_digest: str
    def __init__(self, weights_digest: _Optional[str] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("name", "channels", "stride")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    name: str
    channels: int
    stride: int
    def __init__(self, name: _Optional[str] = ..., channels: _Optional[int] = ..., stride: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("message_bytes", "picture_bytes", "decoded_pixels", "network_pixels", "pictures_per_extract")
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PICTURE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DECODED_PIXELS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_PIXELS_FIELD_NUMBER: _ClassVar[int]
    PICTURES_PER_EXTRACT_FIELD_NUMBER: _ClassVar[int]
    message_bytes: int
    picture_bytes: int
    decoded_pixels: int
    network_pixels: int
    pictures_per_extract: int
    def __init__(self, message_bytes: _Optional[int] = ..., picture_bytes: _Optional[int] = ..., decoded_pixels: _Optional[int] = ..., network_pixels: _Optional[int] = ..., pictures_per_extract: _Optional[int] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("queued", "queue_limit", "callers", "device_seconds", "descents_running", "descents_limit", "descents_queued", "descent_queue_limit", "backlog_seconds")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DESCENTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    DESCENTS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DESCENTS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    DESCENT_QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    queued: int
    queue_limit: int
    callers: int
    device_seconds: float
    descents_running: int
    descents_limit: int
    descents_queued: int
    descent_queue_limit: int
    backlog_seconds: float
    def __init__(self, queued: _Optional[int] = ..., queue_limit: _Optional[int] = ..., callers: _Optional[int] = ..., device_seconds: _Optional[float] = ..., descents_running: _Optional[int] = ..., descents_limit: _Optional[int] = ..., descents_queued: _Optional[int] = ..., descent_queue_limit: _Optional[int] = ..., backlog_seconds: _Optional[float] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("backbone", "weights_digest", "weights_source", "device", "precision", "stages", "limits", "load", "server_version")
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SOURCE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    backbone: str
    weights_digest: str
    weights_source: str
    device: str
    precision: str
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    limits: Limits
    load: Load
    server_version: str
    def __init__(self, backbone: _Optional[str] = ..., weights_digest: _Optional[str] = ..., weights_source: _Optional[str] = ..., device: _Optional[str] = ..., precision: _Optional[str] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., server_version: _Optional[str] = ...) -> None: ...

class Extraction(_message.Message):
    __slots__ = ("stages", "forms", "gram_normalization", "triangle", "element_type", "resize", "weights_digest")
    class Form(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORM_UNSPECIFIED: _ClassVar[Extraction.Form]
        FORM_ACTIVATIONS: _ClassVar[Extraction.Form]
        FORM_GRAM: _ClassVar[Extraction.Form]
        FORM_POOLED: _ClassVar[Extraction.Form]
    FORM_UNSPECIFIED: Extraction.Form
    FORM_ACTIVATIONS: Extraction.Form
    FORM_GRAM: Extraction.Form
    FORM_POOLED: Extraction.Form
    STAGES_FIELD_NUMBER: _ClassVar[int]
    FORMS_FIELD_NUMBER: _ClassVar[int]
    GRAM_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    TRIANGLE_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedScalarFieldContainer[str]
    forms: _containers.RepeatedScalarFieldContainer[Extraction.Form]
    gram_normalization: GramNormalization
    triangle: bool
    element_type: _tensor_pb2.ElementType
    resize: _picture_pb2.Resize
    weights_digest: str
    def __init__(self, stages: _Optional[_Iterable[str]] = ..., forms: _Optional[_Iterable[_Union[Extraction.Form, str]]] = ..., gram_normalization: _Optional[_Union[GramNormalization, str]] = ..., triangle: bool = ..., element_type: _Optional[_Union[_tensor_pb2.ElementType, str]] = ..., resize: _Optional[_Union[_picture_pb2.Resize, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class StageFeatures(_message.Message):
    __slots__ = ("stage", "activations", "gram", "pooled")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    GRAM_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    stage: str
    activations: _tensor_pb2.Tensor
    gram: _tensor_pb2.Tensor
    pooled: _tensor_pb2.Tensor
    def __init__(self, stage: _Optional[str] = ..., activations: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., gram: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., pooled: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PictureFeatures(_message.Message):
    __slots__ = ("stages", "height", "width", "timing", "weights_digest")
    STAGES_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[StageFeatures]
    height: int
    width: int
    timing: _timing_pb2.Timing
    weights_digest: str
    def __init__(self, stages: _Optional[_Iterable[_Union[StageFeatures, _Mapping]]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class ExtractRequest(_message.Message):
    __slots__ = ("extraction", "pictures")
    EXTRACTION_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    extraction: Extraction
    pictures: _containers.RepeatedCompositeFieldContainer[_picture_pb2.Picture]
    def __init__(self, extraction: _Optional[_Union[Extraction, _Mapping]] = ..., pictures: _Optional[_Iterable[_Union[_picture_pb2.Picture, _Mapping]]] = ...) -> None: ...

class ExtractResult(_message.Message):
    __slots__ = ("features", "error")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    features: PictureFeatures
    error: _picture_pb2.PictureError
    def __init__(self, features: _Optional[_Union[PictureFeatures, _Mapping]] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...

class ExtractResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ExtractResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ExtractResult, _Mapping]]] = ...) -> None: ...

class ExtractStreamRequest(_message.Message):
    __slots__ = ("extraction", "items")
    class Item(_message.Message):
        __slots__ = ("id", "picture")
        ID_FIELD_NUMBER: _ClassVar[int]
        PICTURE_FIELD_NUMBER: _ClassVar[int]
        id: str
        picture: _picture_pb2.Picture
        def __init__(self, id: _Optional[str] = ..., picture: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ...) -> None: ...
    EXTRACTION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    extraction: Extraction
    items: _containers.RepeatedCompositeFieldContainer[ExtractStreamRequest.Item]
    def __init__(self, extraction: _Optional[_Union[Extraction, _Mapping]] = ..., items: _Optional[_Iterable[_Union[ExtractStreamRequest.Item, _Mapping]]] = ...) -> None: ...

class PooledFeatures(_message.Message):
    __slots__ = ("stage", "pooled")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    stage: str
    pooled: _tensor_pb2.Tensor
    def __init__(self, stage: _Optional[str] = ..., pooled: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ExtractStreamResponse(_message.Message):
    __slots__ = ("ids", "results", "pooled")
    IDS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    POOLED_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    results: _containers.RepeatedCompositeFieldContainer[ExtractResult]
    pooled: _containers.RepeatedCompositeFieldContainer[PooledFeatures]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., results: _Optional[_Iterable[_Union[ExtractResult, _Mapping]]] = ..., pooled: _Optional[_Iterable[_Union[PooledFeatures, _Mapping]]] = ...) -> None: ...

class StageWeight(_message.Message):
    __slots__ = ("stage", "weight")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    stage: str
    weight: float
    def __init__(self, stage: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Style(_message.Message):
    __slots__ = ("picture", "weight", "content_region", "style_region")
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_REGION_FIELD_NUMBER: _ClassVar[int]
    STYLE_REGION_FIELD_NUMBER: _ClassVar[int]
    picture: _picture_pb2.Picture
    weight: float
    content_region: _picture_pb2.Picture
    style_region: _picture_pb2.Picture
    def __init__(self, picture: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., weight: _Optional[float] = ..., content_region: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., style_region: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("content", "content_stage", "content_weight", "styles", "style_stages", "style_weight", "total_variation_weight", "gram_normalization", "stage_balance", "antialiased", "reduced_precision")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_STAGE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    STYLE_STAGES_FIELD_NUMBER: _ClassVar[int]
    STYLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    GRAM_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    STAGE_BALANCE_FIELD_NUMBER: _ClassVar[int]
    ANTIALIASED_FIELD_NUMBER: _ClassVar[int]
    REDUCED_PRECISION_FIELD_NUMBER: _ClassVar[int]
    content: _picture_pb2.Picture
    content_stage: str
    content_weight: float
    styles: _containers.RepeatedCompositeFieldContainer[Style]
    style_stages: _containers.RepeatedCompositeFieldContainer[StageWeight]
    style_weight: float
    total_variation_weight: float
    gram_normalization: GramNormalization
    stage_balance: StageBalance
    antialiased: bool
    reduced_precision: bool
    def __init__(self, content: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., content_stage: _Optional[str] = ..., content_weight: _Optional[float] = ..., styles: _Optional[_Iterable[_Union[Style, _Mapping]]] = ..., style_stages: _Optional[_Iterable[_Union[StageWeight, _Mapping]]] = ..., style_weight: _Optional[float] = ..., total_variation_weight: _Optional[float] = ..., gram_normalization: _Optional[_Union[GramNormalization, str]] = ..., stage_balance: _Optional[_Union[StageBalance, str]] = ..., antialiased: bool = ..., reduced_precision: bool = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: bool = ...) -> None: ...

class DifferentiateRequest(_message.Message):
    __slots__ = ("setup", "evaluate", "part")
    class Setup(_message.Message):
        __slots__ = ("objective", "gradient_element_type", "weights_digest")
        OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
        GRADIENT_ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        objective: Objective
        gradient_element_type: _tensor_pb2.ElementType
        weights_digest: str
        def __init__(self, objective: _Optional[_Union[Objective, _Mapping]] = ..., gradient_element_type: _Optional[_Union[_tensor_pb2.ElementType, str]] = ..., weights_digest: _Optional[str] = ...) -> None: ...
    class Evaluate(_message.Message):
        __slots__ = ("picture", "sequence")
        PICTURE_FIELD_NUMBER: _ClassVar[int]
        SEQUENCE_FIELD_NUMBER: _ClassVar[int]
        picture: _tensor_pb2.Tensor
        sequence: int
        def __init__(self, picture: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...
    SETUP_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    setup: DifferentiateRequest.Setup
    evaluate: DifferentiateRequest.Evaluate
    part: Part
    def __init__(self, setup: _Optional[_Union[DifferentiateRequest.Setup, _Mapping]] = ..., evaluate: _Optional[_Union[DifferentiateRequest.Evaluate, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ...) -> None: ...

class StageLoss(_message.Message):
    __slots__ = ("stage", "loss")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    loss: float
    def __init__(self, stage: _Optional[str] = ..., loss: _Optional[float] = ...) -> None: ...

class DifferentiateResponse(_message.Message):
    __slots__ = ("ready", "evaluation", "part")
    class Ready(_message.Message):
        __slots__ = ("weights_digest",)
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        weights_digest: str
        def __init__(self, weights_digest: _Optional[str] = ...) -> None: ...
    class Evaluation(_message.Message):
        __slots__ = ("sequence", "loss", "style_loss", "content_loss", "total_variation_loss", "stage_losses", "gradient", "timing")
        SEQUENCE_FIELD_NUMBER: _ClassVar[int]
        LOSS_FIELD_NUMBER: _ClassVar[int]
        STYLE_LOSS_FIELD_NUMBER: _ClassVar[int]
        CONTENT_LOSS_FIELD_NUMBER: _ClassVar[int]
        TOTAL_VARIATION_LOSS_FIELD_NUMBER: _ClassVar[int]
        STAGE_LOSSES_FIELD_NUMBER: _ClassVar[int]
        GRADIENT_FIELD_NUMBER: _ClassVar[int]
        TIMING_FIELD_NUMBER: _ClassVar[int]
        sequence: int
        loss: float
        style_loss: float
        content_loss: float
        total_variation_loss: float
        stage_losses: _containers.RepeatedCompositeFieldContainer[StageLoss]
        gradient: _tensor_pb2.Tensor
        timing: _timing_pb2.Timing
        def __init__(self, sequence: _Optional[int] = ..., loss: _Optional[float] = ..., style_loss: _Optional[float] = ..., content_loss: _Optional[float] = ..., total_variation_loss: _Optional[float] = ..., stage_losses: _Optional[_Iterable[_Union[StageLoss, _Mapping]]] = ..., gradient: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...
    READY_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    ready: DifferentiateResponse.Ready
    evaluation: DifferentiateResponse.Evaluation
    part: Part
    def __init__(self, ready: _Optional[_Union[DifferentiateResponse.Ready, _Mapping]] = ..., evaluation: _Optional[_Union[DifferentiateResponse.Evaluation, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ...) -> None: ...

class DescentSettings(_message.Message):
    __slots__ = ("optimizer", "learning_rate", "history_size", "line_search", "momentum")
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    LINE_SEARCH_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    optimizer: Optimizer
    learning_rate: float
    history_size: int
    line_search: LineSearch
    momentum: float
    def __init__(self, optimizer: _Optional[_Union[Optimizer, str]] = ..., learning_rate: _Optional[float] = ..., history_size: _Optional[int] = ..., line_search: _Optional[_Union[LineSearch, str]] = ..., momentum: _Optional[float] = ...) -> None: ...

class DescentWeights(_message.Message):
    __slots__ = ("number", "content_weight", "style_weight", "total_variation_weight", "style_stages")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STYLE_STAGES_FIELD_NUMBER: _ClassVar[int]
    number: int
    content_weight: float
    style_weight: float
    total_variation_weight: float
    style_stages: _containers.RepeatedCompositeFieldContainer[StageWeight]
    def __init__(self, number: _Optional[int] = ..., content_weight: _Optional[float] = ..., style_weight: _Optional[float] = ..., total_variation_weight: _Optional[float] = ..., style_stages: _Optional[_Iterable[_Union[StageWeight, _Mapping]]] = ...) -> None: ...

class DescendRequest(_message.Message):
    __slots__ = ("start", "reweight", "proceed", "stop", "part", "state")
    class Start(_message.Message):
        __slots__ = ("objective", "settings", "iterations", "initial", "luminance_only", "ending", "preview_every", "preview_side", "state_seconds", "confirm_last", "weights_digest")
        OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
        SETTINGS_FIELD_NUMBER: _ClassVar[int]
        ITERATIONS_FIELD_NUMBER: _ClassVar[int]
        INITIAL_FIELD_NUMBER: _ClassVar[int]
        LUMINANCE_ONLY_FIELD_NUMBER: _ClassVar[int]
        ENDING_FIELD_NUMBER: _ClassVar[int]
        PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
        PREVIEW_SIDE_FIELD_NUMBER: _ClassVar[int]
        STATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
        CONFIRM_LAST_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        objective: Objective
        settings: DescentSettings
        iterations: int
        initial: _picture_pb2.Picture
        luminance_only: bool
        ending: DescentEnding
        preview_every: int
        preview_side: int
        state_seconds: float
        confirm_last: bool
        weights_digest: str
        def __init__(self, objective: _Optional[_Union[Objective, _Mapping]] = ..., settings: _Optional[_Union[DescentSettings, _Mapping]] = ..., iterations: _Optional[int] = ..., initial: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., luminance_only: bool = ..., ending: _Optional[_Union[DescentEnding, str]] = ..., preview_every: _Optional[int] = ..., preview_side: _Optional[int] = ..., state_seconds: _Optional[float] = ..., confirm_last: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...
    class Proceed(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Stop(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    REWEIGHT_FIELD_NUMBER: _ClassVar[int]
    PROCEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    start: DescendRequest.Start
    reweight: DescentWeights
    proceed: DescendRequest.Proceed
    stop: DescendRequest.Stop
    part: Part
    state: bytes
    def __init__(self, start: _Optional[_Union[DescendRequest.Start, _Mapping]] = ..., reweight: _Optional[_Union[DescentWeights, _Mapping]] = ..., proceed: _Optional[_Union[DescendRequest.Proceed, _Mapping]] = ..., stop: _Optional[_Union[DescendRequest.Stop, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., state: _Optional[bytes] = ...) -> None: ...

class DescendResponse(_message.Message):
    __slots__ = ("queued", "ready", "iterations", "preview", "state", "diverged", "waiting", "finished", "part")
    class Queued(_message.Message):
        __slots__ = ("position",)
        POSITION_FIELD_NUMBER: _ClassVar[int]
        position: int
        def __init__(self, position: _Optional[int] = ...) -> None: ...
    class Ready(_message.Message):
        __slots__ = ("weights_digest", "iteration", "height", "width")
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        weights_digest: str
        iteration: int
        height: int
        width: int
        def __init__(self, weights_digest: _Optional[str] = ..., iteration: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...
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
        stage_losses: _containers.RepeatedCompositeFieldContainer[StageLoss]
        evaluations: int
        timing: _timing_pb2.Timing
        def __init__(self, iteration: _Optional[int] = ..., loss: _Optional[float] = ..., style_loss: _Optional[float] = ..., content_loss: _Optional[float] = ..., total_variation_loss: _Optional[float] = ..., stage_losses: _Optional[_Iterable[_Union[StageLoss, _Mapping]]] = ..., evaluations: _Optional[int] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...
    class Iterations(_message.Message):
        __slots__ = ("iterations",)
        ITERATIONS_FIELD_NUMBER: _ClassVar[int]
        iterations: _containers.RepeatedCompositeFieldContainer[DescendResponse.Iteration]
        def __init__(self, iterations: _Optional[_Iterable[_Union[DescendResponse.Iteration, _Mapping]]] = ...) -> None: ...
    class Preview(_message.Message):
        __slots__ = ("iteration", "jpeg")
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        JPEG_FIELD_NUMBER: _ClassVar[int]
        iteration: int
        jpeg: bytes
        def __init__(self, iteration: _Optional[int] = ..., jpeg: _Optional[bytes] = ...) -> None: ...
    class State(_message.Message):
        __slots__ = ("iteration", "data", "number", "reweighted", "last")
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        REWEIGHTED_FIELD_NUMBER: _ClassVar[int]
        LAST_FIELD_NUMBER: _ClassVar[int]
        iteration: int
        data: bytes
        number: int
        reweighted: bool
        last: bool
        def __init__(self, iteration: _Optional[int] = ..., data: _Optional[bytes] = ..., number: _Optional[int] = ..., reweighted: bool = ..., last: bool = ...) -> None: ...
    class Diverged(_message.Message):
        __slots__ = ("iteration", "restarts", "message")
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        RESTARTS_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        iteration: int
        restarts: int
        message: str
        def __init__(self, iteration: _Optional[int] = ..., restarts: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
    class Waiting(_message.Message):
        __slots__ = ("iteration",)
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        iteration: int
        def __init__(self, iteration: _Optional[int] = ...) -> None: ...
    class Finished(_message.Message):
        __slots__ = ("iteration", "picture", "loss", "style_loss", "content_loss", "total_variation_loss", "stage_losses", "timing")
        ITERATION_FIELD_NUMBER: _ClassVar[int]
        PICTURE_FIELD_NUMBER: _ClassVar[int]
        LOSS_FIELD_NUMBER: _ClassVar[int]
        STYLE_LOSS_FIELD_NUMBER: _ClassVar[int]
        CONTENT_LOSS_FIELD_NUMBER: _ClassVar[int]
        TOTAL_VARIATION_LOSS_FIELD_NUMBER: _ClassVar[int]
        STAGE_LOSSES_FIELD_NUMBER: _ClassVar[int]
        TIMING_FIELD_NUMBER: _ClassVar[int]
        iteration: int
        picture: _tensor_pb2.Tensor
        loss: float
        style_loss: float
        content_loss: float
        total_variation_loss: float
        stage_losses: _containers.RepeatedCompositeFieldContainer[StageLoss]
        timing: _timing_pb2.Timing
        def __init__(self, iteration: _Optional[int] = ..., picture: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., loss: _Optional[float] = ..., style_loss: _Optional[float] = ..., content_loss: _Optional[float] = ..., total_variation_loss: _Optional[float] = ..., stage_losses: _Optional[_Iterable[_Union[StageLoss, _Mapping]]] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    queued: DescendResponse.Queued
    ready: DescendResponse.Ready
    iterations: DescendResponse.Iterations
    preview: DescendResponse.Preview
    state: DescendResponse.State
    diverged: DescendResponse.Diverged
    waiting: DescendResponse.Waiting
    finished: DescendResponse.Finished
    part: Part
    def __init__(self, queued: _Optional[_Union[DescendResponse.Queued, _Mapping]] = ..., ready: _Optional[_Union[DescendResponse.Ready, _Mapping]] = ..., iterations: _Optional[_Union[DescendResponse.Iterations, _Mapping]] = ..., preview: _Optional[_Union[DescendResponse.Preview, _Mapping]] = ..., state: _Optional[_Union[DescendResponse.State, _Mapping]] = ..., diverged: _Optional[_Union[DescendResponse.Diverged, _Mapping]] = ..., waiting: _Optional[_Union[DescendResponse.Waiting, _Mapping]] = ..., finished: _Optional[_Union[DescendResponse.Finished, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ...) -> None: ...

class Maximization(_message.Message):
    __slots__ = ("steps", "size", "seed", "preview_every")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    steps: int
    size: int
    seed: int
    preview_every: int
    def __init__(self, steps: _Optional[int] = ..., size: _Optional[int] = ..., seed: _Optional[int] = ..., preview_every: _Optional[int] = ...) -> None: ...

class SeeRequest(_message.Message):
    __slots__ = ("start", "items")
    class Start(_message.Message):
        __slots__ = ("stage", "channels", "patches", "patch_size", "projection", "maximization", "resize", "weights_digest", "patch_field")
        STAGE_FIELD_NUMBER: _ClassVar[int]
        CHANNELS_FIELD_NUMBER: _ClassVar[int]
        PATCHES_FIELD_NUMBER: _ClassVar[int]
        PATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
        PROJECTION_FIELD_NUMBER: _ClassVar[int]
        MAXIMIZATION_FIELD_NUMBER: _ClassVar[int]
        RESIZE_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        PATCH_FIELD_FIELD_NUMBER: _ClassVar[int]
        stage: str
        channels: _containers.RepeatedScalarFieldContainer[int]
        patches: int
        patch_size: int
        projection: Projection
        maximization: Maximization
        resize: _picture_pb2.Resize
        weights_digest: str
        patch_field: PatchField
        def __init__(self, stage: _Optional[str] = ..., channels: _Optional[_Iterable[int]] = ..., patches: _Optional[int] = ..., patch_size: _Optional[int] = ..., projection: _Optional[_Union[Projection, str]] = ..., maximization: _Optional[_Union[Maximization, _Mapping]] = ..., resize: _Optional[_Union[_picture_pb2.Resize, _Mapping]] = ..., weights_digest: _Optional[str] = ..., patch_field: _Optional[_Union[PatchField, str]] = ...) -> None: ...
    class Item(_message.Message):
        __slots__ = ("id", "picture")
        ID_FIELD_NUMBER: _ClassVar[int]
        PICTURE_FIELD_NUMBER: _ClassVar[int]
        id: str
        picture: _picture_pb2.Picture
        def __init__(self, id: _Optional[str] = ..., picture: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    start: SeeRequest.Start
    items: _containers.RepeatedCompositeFieldContainer[SeeRequest.Item]
    def __init__(self, start: _Optional[_Union[SeeRequest.Start, _Mapping]] = ..., items: _Optional[_Iterable[_Union[SeeRequest.Item, _Mapping]]] = ...) -> None: ...

class SeeResponse(_message.Message):
    __slots__ = ("queued", "started", "progress", "refused", "patches", "preview", "optimized", "finished")
    class Queued(_message.Message):
        __slots__ = ("position",)
        POSITION_FIELD_NUMBER: _ClassVar[int]
        position: int
        def __init__(self, position: _Optional[int] = ...) -> None: ...
    class Started(_message.Message):
        __slots__ = ("channels", "stride", "receptive_field", "weights_digest", "effective_field")
        CHANNELS_FIELD_NUMBER: _ClassVar[int]
        STRIDE_FIELD_NUMBER: _ClassVar[int]
        RECEPTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        EFFECTIVE_FIELD_FIELD_NUMBER: _ClassVar[int]
        channels: int
        stride: int
        receptive_field: int
        weights_digest: str
        effective_field: int
        def __init__(self, channels: _Optional[int] = ..., stride: _Optional[int] = ..., receptive_field: _Optional[int] = ..., weights_digest: _Optional[str] = ..., effective_field: _Optional[int] = ...) -> None: ...
    class Progress(_message.Message):
        __slots__ = ("pictures",)
        PICTURES_FIELD_NUMBER: _ClassVar[int]
        pictures: int
        def __init__(self, pictures: _Optional[int] = ...) -> None: ...
    class Refused(_message.Message):
        __slots__ = ("index", "id", "error")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        index: int
        id: str
        error: _picture_pb2.PictureError
        def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...
    class Box(_message.Message):
        __slots__ = ("left", "top", "width", "height")
        LEFT_FIELD_NUMBER: _ClassVar[int]
        TOP_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        left: int
        top: int
        width: int
        height: int
        def __init__(self, left: _Optional[int] = ..., top: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...
    class Patch(_message.Message):
        __slots__ = ("index", "id", "activation", "row", "column", "box", "height", "width", "jpeg", "projection")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        ACTIVATION_FIELD_NUMBER: _ClassVar[int]
        ROW_FIELD_NUMBER: _ClassVar[int]
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        BOX_FIELD_NUMBER: _ClassVar[int]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        JPEG_FIELD_NUMBER: _ClassVar[int]
        PROJECTION_FIELD_NUMBER: _ClassVar[int]
        index: int
        id: str
        activation: float
        row: int
        column: int
        box: SeeResponse.Box
        height: int
        width: int
        jpeg: bytes
        projection: bytes
        def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., activation: _Optional[float] = ..., row: _Optional[int] = ..., column: _Optional[int] = ..., box: _Optional[_Union[SeeResponse.Box, _Mapping]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., jpeg: _Optional[bytes] = ..., projection: _Optional[bytes] = ...) -> None: ...
    class Patches(_message.Message):
        __slots__ = ("channel", "patches")
        CHANNEL_FIELD_NUMBER: _ClassVar[int]
        PATCHES_FIELD_NUMBER: _ClassVar[int]
        channel: int
        patches: _containers.RepeatedCompositeFieldContainer[SeeResponse.Patch]
        def __init__(self, channel: _Optional[int] = ..., patches: _Optional[_Iterable[_Union[SeeResponse.Patch, _Mapping]]] = ...) -> None: ...
    class Preview(_message.Message):
        __slots__ = ("channel", "step", "steps", "activation", "jpeg")
        CHANNEL_FIELD_NUMBER: _ClassVar[int]
        STEP_FIELD_NUMBER: _ClassVar[int]
        STEPS_FIELD_NUMBER: _ClassVar[int]
        ACTIVATION_FIELD_NUMBER: _ClassVar[int]
        JPEG_FIELD_NUMBER: _ClassVar[int]
        channel: int
        step: int
        steps: int
        activation: float
        jpeg: bytes
        def __init__(self, channel: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., activation: _Optional[float] = ..., jpeg: _Optional[bytes] = ...) -> None: ...
    class Optimized(_message.Message):
        __slots__ = ("channel", "activation", "png", "timing")
        CHANNEL_FIELD_NUMBER: _ClassVar[int]
        ACTIVATION_FIELD_NUMBER: _ClassVar[int]
        PNG_FIELD_NUMBER: _ClassVar[int]
        TIMING_FIELD_NUMBER: _ClassVar[int]
        channel: int
        activation: float
        png: bytes
        timing: _timing_pb2.Timing
        def __init__(self, channel: _Optional[int] = ..., activation: _Optional[float] = ..., png: _Optional[bytes] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ...) -> None: ...
    class Finished(_message.Message):
        __slots__ = ("pictures", "refused", "timing", "weights_digest")
        PICTURES_FIELD_NUMBER: _ClassVar[int]
        REFUSED_FIELD_NUMBER: _ClassVar[int]
        TIMING_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        pictures: int
        refused: int
        timing: _timing_pb2.Timing
        weights_digest: str
        def __init__(self, pictures: _Optional[int] = ..., refused: _Optional[int] = ..., timing: _Optional[_Union[_timing_pb2.Timing, _Mapping]] = ..., weights_digest: _Optional[str] = ...) -> None: ...
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PATCHES_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    queued: SeeResponse.Queued
    started: SeeResponse.Started
    progress: SeeResponse.Progress
    refused: SeeResponse.Refused
    patches: SeeResponse.Patches
    preview: SeeResponse.Preview
    optimized: SeeResponse.Optimized
    finished: SeeResponse.Finished
    def __init__(self, queued: _Optional[_Union[SeeResponse.Queued, _Mapping]] = ..., started: _Optional[_Union[SeeResponse.Started, _Mapping]] = ..., progress: _Optional[_Union[SeeResponse.Progress, _Mapping]] = ..., refused: _Optional[_Union[SeeResponse.Refused, _Mapping]] = ..., patches: _Optional[_Union[SeeResponse.Patches, _Mapping]] = ..., preview: _Optional[_Union[SeeResponse.Preview, _Mapping]] = ..., optimized: _Optional[_Union[SeeResponse.Optimized, _Mapping]] = ..., finished: _Optional[_Union[SeeResponse.Finished, _Mapping]] = ...) -> None: ...
