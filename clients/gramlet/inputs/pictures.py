"""Pictures and masks as users hand them in, brought to what travels.

Where the meaning is clear, a value of another type is taken. Everything else is InvalidInput with the field, found here
before any network: no other exception leaves the SDK, whatever a caller hands in. `values` does the same for numbers,
names and settings.
"""

from __future__ import annotations

import base64
import errno
import inspect
import io
import os
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from numpy.typing import NDArray

from gramlet.errors import InvalidInput, NotFound, plain, shown
from gramlet.folders.rules import NOT_A_PICTURE, PEEK_BYTES, is_picture
from gramlet.inputs.files import open_file
from gramlet.inputs.values import unreadable
from gramlet.tensor.fitting import fitting
from gramlet.tensor.pixels import (
    as_array,
    decoded_size,
    is_array,
    is_encoded,
    is_pil,
    read_array,
    read_mask_array,
    read_pil,
)
from gramlet.types import Picture, Resize

if TYPE_CHECKING:
    from PIL import Image


PictureInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any] | Image.Image"
)
"""A path, or a data: or file: URI; the bytes of a file, or a file opened in binary mode; a picture of PIL; or an array
or tensor of pixels, (H, W) or with 1, 3 or 4 channels first or last: whole numbers 0..255, uint16 of 0..65535, or
floating point in 0..1."""

_UNNAMED = "the file"
_LONGEST_PATH = 4096
_MOST_BYTES = 1024 * 1024 * 1024
"""No file is read beyond this: pipes may not end."""


def read_picture(value: PictureInput, field: str = "picture", resize: Resize | None = None) -> Picture:
    """The picture as it travels: an encoded file, or pixels.

    Args:
        value: Any `PictureInput`.
        field: What the caller calls it, for errors.
        resize: What the service will do to its size. A picture too large for a message is then reduced here.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, one too large, or an array of another shape or type.
    """
    if isinstance(value, bytes):
        return _file(value, field, resize)
    if is_pil(value):
        return read_pil(value, field, resize)
    if is_array(value):
        array = as_array(value, field)
        return _file(array.tobytes(), field, resize) if is_encoded(array) else read_array(array, field, resize)
    return _file(_read_bytes(value, field), field, resize, _name_of(value))


def validate(picture: PictureInput, field: str = "picture") -> tuple[int, int]:
    """Reads a picture in full, as the server will, without calling it: for uploads, before work is ordered.

    Every call checks at once that its pictures can be read and begin like pictures. Whether a file is whole shows when
    it is decoded, which the server does, or this.

    Args:
        picture: Any `PictureInput`.
        field: What to call it in errors.

    Returns:
        Its width and height in pixels.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, cut short or broken, or too large.
    """
    return decoded_size(read_picture(picture, field), field)


def read_mask(value: PictureInput, field: str = "mask") -> Picture:
    """A mask as it travels: as `read_picture`. In arrays of one channel, 0 and 1 of any type are outside and inside.

    Raises:
        NotFound: There is no such file.
        InvalidInput: Not a picture, an empty one, or an array of another shape or type.
    """
    is_deep = is_pil(value) and value.mode.startswith(("I", "F"))
    if (is_array(value) or is_deep) and not is_encoded(array := as_array(value, field)):
        return read_mask_array(array, field)
    return read_picture(value, field)


def is_one_picture(value: object) -> bool:
    """Whether the value is one picture rather than several."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or is_pil(value) or _is_file(value):
        return True
    if not is_array(value):
        return False
    axes = getattr(value, "ndim", None)
    axes = axes if isinstance(axes, int) else as_array(value, "pictures").ndim
    return axes < 4 and (axes != 1 or str(getattr(value, "dtype", "")).endswith("uint8"))


def several_pictures(value: Any, kinds: Any, field: str = "pictures") -> Any:
    """The pictures one by one, given as one of the kinds of iterables, or as one picture.

    Raises:
        InvalidInput: Neither.
    """
    if is_one_picture(value):
        return [value]
    if isinstance(value, Mapping):
        raise InvalidInput("a mapping: give its pictures, list(pictures.values())", field=field)
    if not isinstance(value, kinds) or isinstance(value, type):
        raise InvalidInput(f"must be pictures, not {shown(value)}", field=field)
    return value


def read_later(value: PictureInput, field: str) -> PictureInput:
    """The value, to be read when it is sent, perhaps twice: open files are read now.

    Raises:
        InvalidInput: The open file cannot be read.
    """
    return _read_bytes(value, field) if _is_file(value) else value


def existing(value: PictureInput, field: str) -> PictureInput:
    """The value, to be read when it is sent.

    Raises:
        NotFound: It is the path of a file that does not exist.
    """
    try:
        if isinstance(value, os.PathLike) or _is_path(value):
            os.stat(value)  # type: ignore[arg-type]
        is_missing = False
    except (FileNotFoundError, NotADirectoryError):
        is_missing = True
    except (OSError, ValueError):  # it cannot be looked at, or has a NUL: reading it says more
        is_missing = False
    if is_missing and "://" not in os.fsdecode(value):  # type: ignore[arg-type]
        raise _missing(shown(os.fsdecode(value)), field)  # type: ignore[arg-type]
    return value


def item_name(value: Any, otherwise: str) -> str:
    """The name of a picture of a list, for messages: its path, where it has one."""
    is_path = isinstance(value, os.PathLike) or _is_path(value)
    return plain(os.fsdecode(value)) if is_path else otherwise


def _file(data: bytes, field: str, resize: Resize | None, name: str = _UNNAMED) -> bytes:
    if not data:
        raise InvalidInput(f"{name}: empty, not a picture", field=field)
    if not is_picture(data[:PEEK_BYTES]):  # known here, before any call
        if name == _UNNAMED and _looks_like_a_path(data):
            raise InvalidInput("bytes are the content of a file: give a path as text", field=field)
        raise InvalidInput(NOT_A_PICTURE if name == _UNNAMED else f"{name}: {NOT_A_PICTURE}", field=field)
    return fitting(data, resize, field, name)


def _looks_like_a_path(data: bytes) -> bool:
    try:
        return len(data) < _LONGEST_PATH and os.path.isfile(data)
    except ValueError:  # NUL
        return False


def _name_of(value: Any) -> str:
    return shown(os.fsdecode(value)) if isinstance(value, os.PathLike) or _is_path(value) else _UNNAMED


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value[:5].lower() not in ("data:", "file:")


def _is_file(value: object) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "read", None)) and not isinstance(value, os.PathLike)


def _read_bytes(value: Any, field: str) -> bytes:
    """The bytes of a file that is given in any way."""
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, str | os.PathLike):
            return (
                _read_path(value, field) if not isinstance(value, str) or _is_path(value) else _read_uri(value, field)
            )
        if _is_file(value):
            return _read_file(value, field)
        return memoryview(value).tobytes()  # such as array.array
    except (InvalidInput, NotFound):
        raise
    except TypeError:
        kind = type(value).__name__
        message = f"a picture is a path, bytes, an open file, a PIL picture or an array, not {kind}"
        raise InvalidInput(message, field=field) from None
    except Exception as error:  # a file that is closed, a memoryview that was released, whatever else
        raise unreadable(error, field) from None


def _read_path(path: str | os.PathLike[str], field: str) -> bytes:
    name = shown(os.fsdecode(path))
    try:
        with open_file(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > _MOST_BYTES:
                raise InvalidInput(f"{name} has {size / 1e6:,.0f} MB: send it smaller", field=field)
            return _read_file(file, field)
    except FileNotFoundError:
        if "://" in name:
            raise InvalidInput(f"{name} is an address: fetch it, and give its bytes", field=field) from None
        raise _missing(name, field) from None
    except IsADirectoryError:
        raise InvalidInput(
            f"cannot read {name}: a folder, not a picture: gramlet.folders.read_folder lists its pictures", field=field
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            short = f"{name[:20]}... is no path: {error.strerror}. Of base64, give the bytes: base64.b64decode(text)"
            raise InvalidInput(short, field=field) from None
        raise InvalidInput(f"cannot read {name}: {error.strerror or error}", field=field) from None
    except ValueError as error:  # a path with NUL
        raise InvalidInput(f"cannot read {name}: {error}", field=field) from None


def _missing(name: str, field: str) -> NotFound:
    """The error of a path that does not exist, with what is often the reason."""
    name, hint = (repr(name) if name != name.strip() or not name else name), ""
    if name == "-":
        hint = ": for standard input, name /dev/stdin"
    elif name.startswith("~"):
        hint = ": expand it with os.path.expanduser"
    elif set("*?[") & set(name):
        hint = ": patterns are filled in by a shell, where they are not quoted, or by glob.glob"
    return NotFound(f"there is no file {name}{hint}", field=field)


def _read_file(file: Any, field: str) -> bytes:
    """What is left of an open file, or all of it if it was read or written to its end. It stays where it was."""
    if isinstance(file, io.TextIOBase):
        raise InvalidInput("the file is opened as text: open it with mode 'rb'", field=field)
    seekable = bool(file.seekable()) if hasattr(file, "seekable") else False
    start = file.tell() if seekable else 0
    data = _read_picture_of(file, field)
    if seekable and start and not data:
        file.seek(0)
        data = _read_picture_of(file, field)
    if seekable:
        file.seek(start)
    return data


def _read_picture_of(file: Any, field: str) -> bytes:
    """The rest of an open file; its first bytes alone if they are not those of a picture, as it may never end."""
    head = _read_some(file, PEEK_BYTES, field)
    return head + _read_some(file, _MOST_BYTES - len(head), field) if is_picture(head) else head


def _read_some(file: Any, count: int, field: str) -> bytes:
    """The next `count` bytes, or fewer at the end: of pipes and sockets, `read` may return fewer before it."""
    data = bytearray()
    while len(data) < count:
        part = file.read(count - len(data))
        if inspect.iscoroutine(part):
            part.close()
            raise InvalidInput("its read() is asynchronous: give the bytes, `await file.read()`", field=field)
        if not len(part):
            break
        data += memoryview(part)
    return bytes(data)


def _read_uri(uri: str, field: str) -> bytes:
    """The bytes in a data: URI (RFC 2397), or of the file that a file: URI names (RFC 8089)."""
    if uri[:5].lower() == "file:":
        return _read_path(urllib.request.url2pathname(urllib.parse.urlsplit(uri).path), field)
    kind, comma, data = uri.partition(",")
    try:
        if not comma:
            raise ValueError("no comma")
        encoded = urllib.parse.unquote_to_bytes(data)
        return base64.b64decode(encoded) if kind.lower().endswith(";base64") else encoded
    except ValueError:
        message = f"{shown(uri[:30])}... is not a data: URI that can be read, data:image/png;base64,..."
        raise InvalidInput(message, field=field) from None
