from gramlet.run.v1 import run_pb2 as _run_pb2
from gramlet.tensor.v1 import picture_pb2 as _picture_pb2
from gramlet.tensor.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Preset(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESET_UNSPECIFIED: _ClassVar[Preset]
    PRESET_CLASSIC: _ClassVar[Preset]

class Descriptor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESCRIPTOR_UNSPECIFIED: _ClassVar[Descriptor]
    DESCRIPTOR_GRAM: _ClassVar[Descriptor]
    DESCRIPTOR_POOLED: _ClassVar[Descriptor]
    DESCRIPTOR_VECTOR: _ClassVar[Descriptor]

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_EUCLIDEAN: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_CORRELATION: _ClassVar[Metric]

class Exactness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXACTNESS_UNSPECIFIED: _ClassVar[Exactness]
    EXACTNESS_EXACT: _ClassVar[Exactness]
    EXACTNESS_SKETCH: _ClassVar[Exactness]

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_TSNE: _ClassVar[Method]
    METHOD_PCA: _ClassVar[Method]
    METHOD_UMAP: _ClassVar[Method]
    METHOD_ISOMAP: _ClassVar[Method]
    METHOD_MDS: _ClassVar[Method]
    METHOD_LLE: _ClassVar[Method]

class Gradient(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRADIENT_UNSPECIFIED: _ClassVar[Gradient]
    GRADIENT_EXACT: _ClassVar[Gradient]
    GRADIENT_BARNES_HUT: _ClassVar[Gradient]
    GRADIENT_INTERPOLATION: _ClassVar[Gradient]
PRESET_UNSPECIFIED: Preset
PRESET_CLASSIC: Preset
DESCRIPTOR_UNSPECIFIED: Descriptor
DESCRIPTOR_GRAM: Descriptor
DESCRIPTOR_POOLED: Descriptor
DESCRIPTOR_VECTOR: Descriptor
METRIC_UNSPECIFIED: Metric
METRIC_EUCLIDEAN: Metric
METRIC_COSINE: Metric
METRIC_CORRELATION: Metric
EXACTNESS_UNSPECIFIED: Exactness
EXACTNESS_EXACT: Exactness
EXACTNESS_SKETCH: Exactness
METHOD_UNSPECIFIED: Method
METHOD_TSNE: Method
METHOD_PCA: Method
METHOD_UMAP: Method
METHOD_ISOMAP: Method
METHOD_MDS: Method
METHOD_LLE: Method
GRADIENT_UNSPECIFIED: Gradient
GRADIENT_EXACT: Gradient
GRADIENT_BARNES_HUT: Gradient
GRADIENT_INTERPOLATION: Gradient

class Tsne(_message.Message):
    __slots__ = ("perplexities", "iterations", "early_exaggeration", "early_iterations", "learning_rate", "angle", "gradient")
    PERPLEXITIES_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    EARLY_EXAGGERATION_FIELD_NUMBER: _ClassVar[int]
    EARLY_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    ANGLE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    perplexities: _containers.RepeatedScalarFieldContainer[float]
    iterations: int
    early_exaggeration: float
    early_iterations: int
    learning_rate: float
    angle: float
    gradient: Gradient
    def __init__(self, perplexities: _Optional[_Iterable[float]] = ..., iterations: _Optional[int] = ..., early_exaggeration: _Optional[float] = ..., early_iterations: _Optional[int] = ..., learning_rate: _Optional[float] = ..., angle: _Optional[float] = ..., gradient: _Optional[_Union[Gradient, str]] = ...) -> None: ...

class Settings(_message.Message):
    __slots__ = ("descriptor", "stages", "resize", "balance_stages", "metric", "exactness", "sketch_size", "method", "dimensions", "tsne", "neighbors", "seed", "quality_neighbors", "preset", "compare")
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_STAGES_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    EXACTNESS_FIELD_NUMBER: _ClassVar[int]
    SKETCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    TSNE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    descriptor: Descriptor
    stages: _containers.RepeatedScalarFieldContainer[str]
    resize: _picture_pb2.Resize
    balance_stages: bool
    metric: Metric
    exactness: Exactness
    sketch_size: int
    method: Method
    dimensions: int
    tsne: Tsne
    neighbors: int
    seed: int
    quality_neighbors: int
    preset: Preset
    compare: bool
    def __init__(self, descriptor: _Optional[_Union[Descriptor, str]] = ..., stages: _Optional[_Iterable[str]] = ..., resize: _Optional[_Union[_picture_pb2.Resize, _Mapping]] = ..., balance_stages: bool = ..., metric: _Optional[_Union[Metric, str]] = ..., exactness: _Optional[_Union[Exactness, str]] = ..., sketch_size: _Optional[int] = ..., method: _Optional[_Union[Method, str]] = ..., dimensions: _Optional[int] = ..., tsne: _Optional[_Union[Tsne, _Mapping]] = ..., neighbors: _Optional[int] = ..., seed: _Optional[int] = ..., quality_neighbors: _Optional[int] = ..., preset: _Optional[_Union[Preset, str]] = ..., compare: bool = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "label", "picture", "vector")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    picture: _picture_pb2.Picture
    vector: _tensor_pb2.Tensor
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ..., picture: _Optional[_Union[_picture_pb2.Picture, _Mapping]] = ..., vector: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class UnreadItem(_message.Message):
    __slots__ = ("id", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    error: _picture_pb2.PictureError
    def __init__(self, id: _Optional[str] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("start", "item", "unread")
    class Start(_message.Message):
        __slots__ = ("settings", "resume_map_id", "watch_map_id", "count", "map_id", "from_map_id", "report_every", "omit_coordinates", "detached", "take_over", "items_of_map_id", "vector_size", "weights_digest")
        SETTINGS_FIELD_NUMBER: _ClassVar[int]
        RESUME_MAP_ID_FIELD_NUMBER: _ClassVar[int]
        WATCH_MAP_ID_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        MAP_ID_FIELD_NUMBER: _ClassVar[int]
        FROM_MAP_ID_FIELD_NUMBER: _ClassVar[int]
        REPORT_EVERY_FIELD_NUMBER: _ClassVar[int]
        OMIT_COORDINATES_FIELD_NUMBER: _ClassVar[int]
        DETACHED_FIELD_NUMBER: _ClassVar[int]
        TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
        ITEMS_OF_MAP_ID_FIELD_NUMBER: _ClassVar[int]
        VECTOR_SIZE_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        settings: Settings
        resume_map_id: str
        watch_map_id: str
        count: int
        map_id: str
        from_map_id: str
        report_every: int
        omit_coordinates: bool
        detached: bool
        take_over: bool
        items_of_map_id: str
        vector_size: int
        weights_digest: str
        def __init__(self, settings: _Optional[_Union[Settings, _Mapping]] = ..., resume_map_id: _Optional[str] = ..., watch_map_id: _Optional[str] = ..., count: _Optional[int] = ..., map_id: _Optional[str] = ..., from_map_id: _Optional[str] = ..., report_every: _Optional[int] = ..., omit_coordinates: bool = ..., detached: bool = ..., take_over: bool = ..., items_of_map_id: _Optional[str] = ..., vector_size: _Optional[int] = ..., weights_digest: _Optional[str] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    start: EmbedRequest.Start
    item: Item
    unread: UnreadItem
    def __init__(self, start: _Optional[_Union[EmbedRequest.Start, _Mapping]] = ..., item: _Optional[_Union[Item, _Mapping]] = ..., unread: _Optional[_Union[UnreadItem, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("map_id", "queued", "started", "described", "refused", "measured", "iteration", "result", "progress", "working")
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    WORKING_FIELD_NUMBER: _ClassVar[int]
    map_id: str
    queued: Queued
    started: Started
    described: Described
    refused: Refused
    measured: Measured
    iteration: Iteration
    result: StyleMap
    progress: _run_pb2.Progress
    working: Working
    def __init__(self, map_id: _Optional[str] = ..., queued: _Optional[_Union[Queued, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., described: _Optional[_Union[Described, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ..., iteration: _Optional[_Union[Iteration, _Mapping]] = ..., result: _Optional[_Union[StyleMap, _Mapping]] = ..., progress: _Optional[_Union[_run_pb2.Progress, _Mapping]] = ..., working: _Optional[_Union[Working, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("settings", "memory_bound_bytes", "resumed", "weights_digest")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    settings: Settings
    memory_bound_bytes: int
    resumed: bool
    weights_digest: str
    def __init__(self, settings: _Optional[_Union[Settings, _Mapping]] = ..., memory_bound_bytes: _Optional[int] = ..., resumed: bool = ..., weights_digest: _Optional[str] = ...) -> None: ...

class Described(_message.Message):
    __slots__ = ("described", "refused", "count")
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    described: int
    refused: int
    count: int
    def __init__(self, described: _Optional[int] = ..., refused: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("index", "id", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    error: _picture_pb2.PictureError
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("exactness", "descriptor_size", "largest_error", "rms_error", "pairs_checked", "duplicates")
    EXACTNESS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_SIZE_FIELD_NUMBER: _ClassVar[int]
    LARGEST_ERROR_FIELD_NUMBER: _ClassVar[int]
    RMS_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAIRS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    exactness: Exactness
    descriptor_size: int
    largest_error: float
    rms_error: float
    pairs_checked: int
    duplicates: int
    def __init__(self, exactness: _Optional[_Union[Exactness, str]] = ..., descriptor_size: _Optional[int] = ..., largest_error: _Optional[float] = ..., rms_error: _Optional[float] = ..., pairs_checked: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class Working(_message.Message):
    __slots__ = ("task", "done", "total")
    class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TASK_UNSPECIFIED: _ClassVar[Working.Task]
        TASK_COMPARISON: _ClassVar[Working.Task]
        TASK_DISTANCES: _ClassVar[Working.Task]
        TASK_QUALITY: _ClassVar[Working.Task]
    TASK_UNSPECIFIED: Working.Task
    TASK_COMPARISON: Working.Task
    TASK_DISTANCES: Working.Task
    TASK_QUALITY: Working.Task
    TASK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    task: Working.Task
    done: int
    total: int
    def __init__(self, task: _Optional[_Union[Working.Task, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Iteration(_message.Message):
    __slots__ = ("layout", "perplexity", "iteration", "iterations", "kl_divergence", "coordinates")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    KL_DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    layout: int
    perplexity: float
    iteration: int
    iterations: int
    kl_divergence: float
    coordinates: _tensor_pb2.Tensor
    def __init__(self, layout: _Optional[int] = ..., perplexity: _Optional[float] = ..., iteration: _Optional[int] = ..., iterations: _Optional[int] = ..., kl_divergence: _Optional[float] = ..., coordinates: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("neighbors", "trustworthiness", "continuity", "neighbor_preservation", "label_accuracy", "descriptor_label_accuracy", "silhouette", "descriptor_silhouette", "items", "standard_error", "neighbor_recall")
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    TRUSTWORTHINESS_FIELD_NUMBER: _ClassVar[int]
    CONTINUITY_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOR_PRESERVATION_FIELD_NUMBER: _ClassVar[int]
    LABEL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_LABEL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SILHOUETTE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_SILHOUETTE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOR_RECALL_FIELD_NUMBER: _ClassVar[int]
    neighbors: int
    trustworthiness: float
    continuity: float
    neighbor_preservation: float
    label_accuracy: float
    descriptor_label_accuracy: float
    silhouette: float
    descriptor_silhouette: float
    items: int
    standard_error: float
    neighbor_recall: float
    def __init__(self, neighbors: _Optional[int] = ..., trustworthiness: _Optional[float] = ..., continuity: _Optional[float] = ..., neighbor_preservation: _Optional[float] = ..., label_accuracy: _Optional[float] = ..., descriptor_label_accuracy: _Optional[float] = ..., silhouette: _Optional[float] = ..., descriptor_silhouette: _Optional[float] = ..., items: _Optional[int] = ..., standard_error: _Optional[float] = ..., neighbor_recall: _Optional[float] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("perplexity", "coordinates", "kl_divergence", "quality")
    PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    KL_DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    perplexity: float
    coordinates: _tensor_pb2.Tensor
    kl_divergence: float
    quality: Quality
    def __init__(self, perplexity: _Optional[float] = ..., coordinates: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., kl_divergence: _Optional[float] = ..., quality: _Optional[_Union[Quality, _Mapping]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("descriptor", "stages", "balance_stages", "descriptor_label_accuracy", "label_accuracy")
    DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    BALANCE_STAGES_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTOR_LABEL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LABEL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    descriptor: Descriptor
    stages: _containers.RepeatedScalarFieldContainer[str]
    balance_stages: bool
    descriptor_label_accuracy: float
    label_accuracy: float
    def __init__(self, descriptor: _Optional[_Union[Descriptor, str]] = ..., stages: _Optional[_Iterable[str]] = ..., balance_stages: bool = ..., descriptor_label_accuracy: _Optional[float] = ..., label_accuracy: _Optional[float] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("id", "label")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class StyleMap(_message.Message):
    __slots__ = ("map_id", "created", "settings", "backbone", "weights_digest", "places", "layouts", "measured", "refused", "notes", "seconds", "comparison")
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    map_id: str
    created: float
    settings: Settings
    backbone: str
    weights_digest: str
    places: _containers.RepeatedCompositeFieldContainer[Place]
    layouts: _containers.RepeatedCompositeFieldContainer[Layout]
    measured: Measured
    refused: _containers.RepeatedCompositeFieldContainer[Refused]
    notes: _containers.RepeatedScalarFieldContainer[str]
    seconds: float
    comparison: _containers.RepeatedCompositeFieldContainer[Comparison]
    def __init__(self, map_id: _Optional[str] = ..., created: _Optional[float] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., backbone: _Optional[str] = ..., weights_digest: _Optional[str] = ..., places: _Optional[_Iterable[_Union[Place, _Mapping]]] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., measured: _Optional[_Union[Measured, _Mapping]] = ..., refused: _Optional[_Iterable[_Union[Refused, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., seconds: _Optional[float] = ..., comparison: _Optional[_Iterable[_Union[Comparison, _Mapping]]] = ...) -> None: ...

class TransformRequest(_message.Message):
    __slots__ = ("start", "item")
    class Start(_message.Message):
        __slots__ = ("map_id", "weights_digest")
        MAP_ID_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
        map_id: str
        weights_digest: str
        def __init__(self, map_id: _Optional[str] = ..., weights_digest: _Optional[str] = ...) -> None: ...
    START_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    start: TransformRequest.Start
    item: Item
    def __init__(self, start: _Optional[_Union[TransformRequest.Start, _Mapping]] = ..., item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class Neighbor(_message.Message):
    __slots__ = ("index", "id", "distance")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    distance: float
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., distance: _Optional[float] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("coordinates", "neighbors", "weights_digest")
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    coordinates: _tensor_pb2.Tensor
    neighbors: _containers.RepeatedCompositeFieldContainer[Neighbor]
    weights_digest: str
    def __init__(self, coordinates: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., neighbors: _Optional[_Iterable[_Union[Neighbor, _Mapping]]] = ..., weights_digest: _Optional[str] = ...) -> None: ...

class TransformResponse(_message.Message):
    __slots__ = ("id", "position", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    position: Position
    error: _picture_pb2.PictureError
    def __init__(self, id: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., error: _Optional[_Union[_picture_pb2.PictureError, _Mapping]] = ...) -> None: ...

class DrawMapRequest(_message.Message):
    __slots__ = ("map_id", "form", "layout", "width", "title")
    class Form(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORM_UNSPECIFIED: _ClassVar[DrawMapRequest.Form]
        FORM_SCATTER: _ClassVar[DrawMapRequest.Form]
        FORM_GRID: _ClassVar[DrawMapRequest.Form]
        FORM_PAGE: _ClassVar[DrawMapRequest.Form]
    FORM_UNSPECIFIED: DrawMapRequest.Form
    FORM_SCATTER: DrawMapRequest.Form
    FORM_GRID: DrawMapRequest.Form
    FORM_PAGE: DrawMapRequest.Form
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    map_id: str
    form: DrawMapRequest.Form
    layout: int
    width: int
    title: str
    def __init__(self, map_id: _Optional[str] = ..., form: _Optional[_Union[DrawMapRequest.Form, str]] = ..., layout: _Optional[int] = ..., width: _Optional[int] = ..., title: _Optional[str] = ...) -> None: ...

class DrawMapResponse(_message.Message):
    __slots__ = ("content_type", "total_bytes", "chunk")
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    content_type: str
    total_bytes: int
    chunk: bytes
    def __init__(self, content_type: _Optional[str] = ..., total_bytes: _Optional[int] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class GetMapRequest(_message.Message):
    __slots__ = ("map_id",)
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    map_id: str
    def __init__(self, map_id: _Optional[str] = ...) -> None: ...

class GetMapResponse(_message.Message):
    __slots__ = ("map",)
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: StyleMap
    def __init__(self, map: _Optional[_Union[StyleMap, _Mapping]] = ...) -> None: ...

class ListMapsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListMapsResponse(_message.Message):
    __slots__ = ("maps",)
    class Entry(_message.Message):
        __slots__ = ("map_id", "created", "method", "items", "layouts", "finished")
        MAP_ID_FIELD_NUMBER: _ClassVar[int]
        CREATED_FIELD_NUMBER: _ClassVar[int]
        METHOD_FIELD_NUMBER: _ClassVar[int]
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        LAYOUTS_FIELD_NUMBER: _ClassVar[int]
        FINISHED_FIELD_NUMBER: _ClassVar[int]
        map_id: str
        created: float
        method: Method
        items: int
        layouts: int
        finished: bool
        def __init__(self, map_id: _Optional[str] = ..., created: _Optional[float] = ..., method: _Optional[_Union[Method, str]] = ..., items: _Optional[int] = ..., layouts: _Optional[int] = ..., finished: bool = ...) -> None: ...
    MAPS_FIELD_NUMBER: _ClassVar[int]
    maps: _containers.RepeatedCompositeFieldContainer[ListMapsResponse.Entry]
    def __init__(self, maps: _Optional[_Iterable[_Union[ListMapsResponse.Entry, _Mapping]]] = ...) -> None: ...

class DeleteMapRequest(_message.Message):
    __slots__ = ("map_id",)
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    map_id: str
    def __init__(self, map_id: _Optional[str] = ...) -> None: ...

class DeleteMapResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
