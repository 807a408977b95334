"""What people hand to `see`, checked and turned into dataclasses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from gramlet.errors import GramletError, InvalidInput
from gramlet.feature.see_types import MOST_CHANNELS, Maximization, PatchField, Projection, SeeStart
from gramlet.folders import Folder, read_folder
from gramlet.inputs.pictures import PictureInput, existing, is_one_picture, item_name, read_later, read_picture
from gramlet.inputs.values import as_resize, check_keywords, choose, fill, flag, several, text, whole_number
from gramlet.types import Picture, Resize, ResizeMode

_log = logging.getLogger(__name__)
_REASONS = 3

SIZE = 320
"""The longest side of pictures by default, in pixels."""

SeenInput: TypeAlias = "str | os.PathLike[str] | Folder | Iterable[PictureInput] | PictureInput"
"""A folder of pictures, as a path or read; pictures; or one picture."""


class SeeOptions(TypedDict, total=False):
    """What to show of each channel, as keywords.

    Attributes:
        patches: Patches of each channel. Default: 9.
        patch_field: What a patch shows: the `effective` receptive field (default), or the `theoretical` one.
        patch_size: The longest side of a patch in pixels. Default: 224, and 64 for more than 64 channels.
        projection: How patches are projected back to pixels: `guided`, `deconvnet` or `none`. Default: `guided` for
            channels that are named, `none` for a whole stage.
        optimize: Whether to optimize a picture for each channel. Default: for channels that are named.
        steps, optimized_size, seed, preview_every: Of the optimized picture; the fields of `Maximization`, whose
            `size` is `optimized_size`. Default of preview_every: 8.
        resize: How pictures are resized; a number is the longest side in pixels. Default: 320.
    """

    patches: int
    patch_field: PatchField | str
    patch_size: int | None
    projection: Projection | str | None
    optimize: bool | None
    steps: int
    optimized_size: int
    seed: int
    preview_every: int
    resize: Resize | int | None


_OF_MAXIMIZATION = {"steps": "steps", "optimized_size": "size", "seed": "seed", "preview_every": "preview_every"}
"""The options of an optimized picture, and the fields of `Maximization`."""


def make_see_start(
    stage: str, channels: int | Iterable[int] | None, options: SeeOptions, *, has_pictures: bool, weights_digest: str
) -> SeeStart:
    """What to show, from keywords.

    Raises:
        InvalidInput: A value that cannot be, or nothing to show.
    """
    check_keywords(options, SeeOptions.__annotations__)
    values: dict[str, Any] = dict(options)
    chosen = _channels(channels)
    of_maximization = {field: values.pop(name) for name, field in _OF_MAXIMIZATION.items() if name in values}
    optimize = values.pop("optimize", None)
    optimizes = bool(chosen) if optimize is None else flag(optimize, "optimize")
    projection = _projection(values.pop("projection", None), is_guided=bool(chosen) and has_pictures)
    if not has_pictures and not optimizes:
        raise InvalidInput("give pictures, or channels to optimize a picture for", field="pictures")
    if optimizes or projection is not Projection.NONE:
        _check_few(chosen)
    resize = values.pop("resize", None)
    patches = _patches(values.pop("patches", SeeStart.patches)) if has_pictures else 0
    maximization = fill(Maximization, {"preview_every": 8, **of_maximization}, positive=("steps", "size"))
    return fill(
        SeeStart,
        {
            **values,
            "stage": text(stage, "stage"),
            "channels": chosen,
            "patches": patches,
            "projection": projection,
            "maximization": maximization if optimizes else None,
            "resize": as_resize(SIZE if resize is None else resize, ResizeMode.LONGEST_SIDE),
            "weights_digest": weights_digest,
        },
    )


def _check_few(channels: Sequence[int]) -> None:
    """Projections and optimized pictures take seconds for each channel."""
    if not 1 <= len(channels) <= MOST_CHANNELS:
        raise InvalidInput(
            f"name 1 to {MOST_CHANNELS} channels to project patches or to optimize pictures", field="channels"
        )


def _projection(given: Projection | str | None, *, is_guided: bool) -> Projection:
    """How patches are projected; where that is not given, `is_guided` says whether they are projected at all."""
    default = Projection.GUIDED if is_guided else Projection.NONE
    return choose(Projection, default if given is None else given, "projection")


def _patches(given: Any) -> int:
    """How many patches of the pictures to show."""
    if not (patches := whole_number(given, "patches")):
        raise InvalidInput(
            "without patches no picture is looked at: ask for patches, or leave the pictures out", field="patches"
        )
    return patches


def _channels(given: Any) -> tuple[int, ...]:
    if given is None:
        return ()
    items = several(given, "channels") if isinstance(given, Iterable) and getattr(given, "ndim", None) != 0 else [given]
    found = tuple(whole_number(item, "channels") for item in items)
    if not found:
        raise InvalidInput("no channels: leave it out for all channels of the stage", field="channels")
    for place, channel in enumerate(found):
        if channel in found[:place]:
            raise InvalidInput(f"channel {channel} is named twice", field="channels")
    return found


@dataclass(frozen=True)
class UnreadPicture:
    """A picture that is read when it is sent. `error` is why it cannot be read, where that is known."""

    id: str
    picture: PictureInput
    error: GramletError | None = None

    def read(self, resize: Resize) -> Picture:
        """The picture as it travels. One too large for a message is reduced as far as the resizing allows.

        Raises:
            NotFound, InvalidInput: It cannot be read, or is not a picture.
        """
        if self.error is not None:
            raise self.error
        return read_picture(self.picture, "picture", resize)


def read_seen(given: SeenInput | None) -> list[UnreadPicture]:
    """The pictures in order; of a folder all pictures below it in natural order.

    Raises:
        NotFound: There is no such folder or file, or no picture below the folder.
        InvalidInput: There are no pictures, or none of them can be read.
    """
    if given is None:
        return []
    if isinstance(given, str | os.PathLike) and os.path.isdir(given):
        given = read_folder(given, labels=False)
    if isinstance(given, Folder):
        for remark in given.remarks():
            _log.info("%s", remark)
        pictures = [_unread(picture.source, picture.name) for picture in given.pictures]
    else:
        ones = [given] if is_one_picture(given) else several(given, "pictures")
        pictures = [_unread(one, item_name(one, str(number))) for number, one in enumerate(ones)]
    _check_any_readable(pictures)
    return pictures


def _unread(one: Any, name: str) -> UnreadPicture:
    try:
        return UnreadPicture(name, existing(read_later(one, "pictures"), "pictures"))
    except GramletError as error:
        return UnreadPicture(name, b"", error)


def _check_any_readable(pictures: Sequence[UnreadPicture]) -> None:
    errors = [picture.error for picture in pictures if picture.error is not None]
    if not pictures:
        raise InvalidInput("there are no pictures", field="pictures")
    if len(pictures) == len(errors) == 1:
        raise errors[0]
    if len(pictures) == len(errors):
        reasons = "; ".join(f"{each.id}: {each.error}" for each in pictures[:_REASONS])
        raise InvalidInput(f"no picture can be read: {reasons}", field="pictures")
