from gramlet.tensor.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Picture(_message.Message):
    __slots__ = ("encoded", "pixels")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    pixels: _tensor_pb2.Tensor
    def __init__(self, encoded: _Optional[bytes] = ..., pixels: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Resize(_message.Message):
    __slots__ = ("mode", "size")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Resize.Mode]
        MODE_LONGEST_SIDE: _ClassVar[Resize.Mode]
        MODE_SHORTEST_SIDE: _ClassVar[Resize.Mode]
        MODE_CENTER_CROP: _ClassVar[Resize.Mode]
        MODE_STRETCH: _ClassVar[Resize.Mode]
    MODE_UNSPECIFIED: Resize.Mode
    MODE_LONGEST_SIDE: Resize.Mode
    MODE_SHORTEST_SIDE: Resize.Mode
    MODE_CENTER_CROP: Resize.Mode
    MODE_STRETCH: Resize.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    mode: Resize.Mode
    size: int
    def __init__(self, mode: _Optional[_Union[Resize.Mode, str]] = ..., size: _Optional[int] = ...) -> None: ...

class PictureError(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...
