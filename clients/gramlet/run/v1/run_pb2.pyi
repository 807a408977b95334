from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_STYLIZE: _ClassVar[Kind]
    KIND_SWEEP: _ClassVar[Kind]
    KIND_TRAIN: _ClassVar[Kind]
    KIND_EMBED: _ClassVar[Kind]

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_QUEUED: _ClassVar[State]
    STATE_RUNNING: _ClassVar[State]
    STATE_SUCCEEDED: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]
    STATE_STOPPED: _ClassVar[State]
KIND_UNSPECIFIED: Kind
KIND_STYLIZE: Kind
KIND_SWEEP: Kind
KIND_TRAIN: Kind
KIND_EMBED: Kind
STATE_UNSPECIFIED: State
STATE_QUEUED: State
STATE_RUNNING: State
STATE_SUCCEEDED: State
STATE_FAILED: State
STATE_STOPPED: State

class Progress(_message.Message):
    __slots__ = ("done", "total", "loss", "phase")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    loss: float
    phase: str
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ..., loss: _Optional[float] = ..., phase: _Optional[str] = ...) -> None: ...

class RunError(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "kind", "owner", "detached", "state", "progress", "created", "updated", "ended", "bytes", "error", "settings")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    kind: Kind
    owner: str
    detached: bool
    state: State
    progress: Progress
    created: float
    updated: float
    ended: float
    bytes: int
    error: RunError
    settings: str
    def __init__(self, run_id: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., owner: _Optional[str] = ..., detached: bool = ..., state: _Optional[_Union[State, str]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., created: _Optional[float] = ..., updated: _Optional[float] = ..., ended: _Optional[float] = ..., bytes: _Optional[int] = ..., error: _Optional[_Union[RunError, _Mapping]] = ..., settings: _Optional[str] = ...) -> None: ...

class RunResult(_message.Message):
    __slots__ = ("png", "head", "map_id")
    PNG_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    MAP_ID_FIELD_NUMBER: _ClassVar[int]
    png: bytes
    head: str
    map_id: str
    def __init__(self, png: _Optional[bytes] = ..., head: _Optional[str] = ..., map_id: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("kind", "state", "owner", "page_size", "page_token")
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    state: State
    owner: str
    page_size: int
    page_token: str
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., state: _Optional[_Union[State, str]] = ..., owner: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id", "kind", "include_result")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_RESULT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    kind: Kind
    include_result: bool
    def __init__(self, run_id: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., include_result: bool = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "result")
    RUN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    run: Run
    result: RunResult
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., result: _Optional[_Union[RunResult, _Mapping]] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run_id", "kind")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    kind: Kind
    def __init__(self, run_id: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class DeleteRunRequest(_message.Message):
    __slots__ = ("run_id", "kind")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    kind: Kind
    def __init__(self, run_id: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ...) -> None: ...

class DeleteRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
