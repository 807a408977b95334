"""Files that commands write: checked before the work begins, and whole or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from gramlet.errors import InvalidInput, shown
from gramlet.folders import FolderPicture
from gramlet.images import checked_png, open_image

PICTURES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_OTHER_FILES = (".npz", ".npy", ".html", ".htm", ".safetensors", ".onnx", ".gif")
_JPEG_QUALITY = 95
_FREE_BYTES = 16 * 1024 * 1024


def check_output(
    path: Path,
    extensions: Collection[str],
    option: str,
    inputs: Iterable[str | Path] = (),
    *,
    elsewhere: Mapping[str, str] = {},  # never changed
) -> None:
    """Finds out whether a file can be written before anybody works for it, and makes its folder.

    Args:
        path: The file.
        extensions: Those of the known formats, in lower case.
        option: The option that names it, for errors.
        inputs: Files that must not be overwritten, and folders whose pictures must not be.
        elsewhere: Extensions for which there is another option.

    Raises:
        InvalidInput: An extension of no known format; a folder; a name that is too long; one of the inputs; or its
            folder cannot be made or written to, or is full.
    """
    suffix = path.suffix.lower()
    if suffix not in extensions:
        hint = f"; {suffix} goes to {elsewhere[suffix]}" if suffix in elsewhere else ""
        raise InvalidInput(f"{shown(str(path))} must end in one of {', '.join(extensions)}{hint}", field=option)
    if os.path.isdir(path):
        raise InvalidInput(f"{shown(str(path))} is a folder", field=option)
    check_name(path, option)
    for given in inputs:
        if _is_read(path, given):
            raise InvalidInput(
                f"{shown(str(path))} is one of the inputs or another output: choose another name", field=option
            )
    check_directory(path.parent, option)


def _is_read(path: Path, given: str | Path) -> bool:
    """Whether a path is a file that was given, or a picture of a folder that was given."""
    real, of_given = Path(os.path.realpath(path)), os.path.realpath(given)
    is_in_folder = os.path.isdir(of_given) and real.is_relative_to(of_given)
    return real == Path(of_given) or (is_in_folder and path.suffix.lower() in PICTURES and os.path.isfile(real))


def check_name(path: Path, option: str) -> None:
    """Finds out whether the file system takes a name.

    Raises:
        InvalidInput: It is too long, or has characters that the file system does not take.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise InvalidInput(f"{shown(str(path))}: {error.strerror}", field=option) from None
    except ValueError as error:  # NUL
        raise InvalidInput(f"{shown(str(path))}: {error}", field=option) from None


def check_directory(path: Path, option: str) -> None:
    """Makes a folder, and finds out whether files can be written to it.

    Raises:
        InvalidInput: It cannot be made or written to, has no room, or is new and has the name of a file.
    """
    name = shown(str(path))
    if path.suffix.lower() in (*PICTURES, *_OTHER_FILES) and not os.path.exists(path):
        raise InvalidInput(f"{name} is the name of a file: a folder is wanted here, for several files", field=option)
    if os.path.isfile(path):
        raise InvalidInput(f"{name} is a file, not a folder", field=option)
    with suppress(OSError, ValueError):  # some file systems do not say
        existing = next(each for each in (path, *path.absolute().parents) if os.path.exists(each))
        if (free := shutil.disk_usage(existing).free) < _FREE_BYTES:
            raise InvalidInput(f"only {free / 1e6:.1f} MB are free at {name}: make room", field=option)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _temporary(path).unlink()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot write to {name}: {_reason(error)}", field=option) from None


def check_apart(folder: Path, inputs: Iterable[str], option: str) -> None:
    """Refuses to write into the folders that were given as inputs: the results would be inputs of the next time.

    Raises:
        InvalidInput: The folder is one of the inputs, or inside of one.
    """
    target = Path(os.path.realpath(folder))
    for given in inputs:
        if os.path.isdir(given) and target.is_relative_to(os.path.realpath(given)):
            raise InvalidInput(
                f"{shown(str(folder))} is in {shown(given)}, whose pictures are read: choose a folder outside of it",
                field=option,
            )


def outputs_of(pictures: Sequence[FolderPicture], folder: Path, extension: str, *, replace: bool = True) -> list[Path]:
    """Where the result of each picture is written: its path in its folder, with another extension.

    Args:
        pictures: The pictures.
        folder: The folder of the results.
        extension: That of the results.
        replace: Replace the picture's extension, unless another picture differs in nothing else; or add the new one.

    Raises:
        InvalidInput: Two results would have one name.
    """
    names = [_path_in_folder(picture) for picture in pictures]
    short = Counter(name.with_suffix(extension) for name in names)
    outputs = [
        folder / (short_name if replace and short[short_name] == 1 else name.with_name(name.name + extension))
        for name in names
        for short_name in [name.with_suffix(extension)]
    ]
    repeated = [source for source, count in Counter(picture.source for picture in pictures).items() if count > 1]
    if repeated:
        raise InvalidInput(f"{shown(repeated[0])} is given twice: name it once", field="pictures")
    twice = next((path for path, count in Counter(outputs).items() if count > 1), None)
    if twice is not None:
        first, second = [shown(each.source) for each, path in zip(pictures, outputs, strict=True) if path == twice][:2]
        raise InvalidInput(
            f"{first} and {second} have one name, for one file in {shown(str(twice.parent))}: call the command once "
            "for each, with another --output",
            field="pictures",
        )
    return outputs


def _path_in_folder(picture: FolderPicture) -> Path:
    # Of the source: its bytes may not be UTF-8, and the name has escapes for them.
    is_file = picture.name == picture.source
    depth = 1 if is_file else picture.name.count("/") + 1
    return Path(*Path(picture.source).parts[-depth:])


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that others see the old one or the new one, never a part."""
    partial = _temporary(path.parent)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def encode_picture_as(image: Image.Image, path: Path) -> bytes:
    """The picture as a file of the format that the path's extension names. What cannot be transparent is on white."""
    file = BytesIO()
    kind = PICTURES[path.suffix.lower()]
    if kind in ("JPEG", "BMP") and image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.save(file, format=kind, **({"quality": _JPEG_QUALITY} if kind in ("JPEG", "WEBP") else {}))
    return file.getvalue()


def png_as(data: bytes, path: Path) -> bytes:
    """A server's PNG as a file of the format that the path's extension names; a `.png` gets the very bytes.

    Raises:
        InternalError: The server sent something else.
    """
    return checked_png(data) if path.suffix.lower() == ".png" else encode_picture_as(open_image(data), path)


def _temporary(folder: Path) -> Path:
    """A new file in the folder. Its name is short: a name that fits the file system stays one that fits."""
    path = folder / f".{secrets.token_hex(4)}.part"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
