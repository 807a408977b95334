"""Several pictures painted alike, one after another: what to ask for next, and what a failure means. Pure: no gRPC."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gramlet.errors import GramletError, InvalidInput, NotFound
from gramlet.inputs.pictures import PictureInput, read_picture
from gramlet.inputs.values import flag, whole_number
from gramlet.stylize.inputs import content_resize, fit_message
from gramlet.stylize.types import Initial, Result, Started, Stylization, StylizeEvent
from gramlet.types import Picture

SHARE_OF_ITERATIONS = 0.25
"""A further frame's share of the first frame's iterations: it starts where those have led."""


@dataclass(frozen=True)
class SetEvent:
    """Something happened to a picture of a set.

    Attributes:
        index: The picture's place in the set, from 0.
        event: An event of its stylization; or the error by which it failed, alone.
    """

    index: int
    event: StylizeEvent | GramletError


class StylizeSet:
    """The pictures of a set, one after another.

    In a sequence each picture after the first starts from the last result, moved as its content has moved, at the full
    size only and with fewer iterations: what was painted stays on what it was painted on.

    Args:
        template: The stylization of every picture, but for its content.
        sequence: Whether the pictures are the frames of a sequence.
        frame_iterations: Iterations of every frame after the first; None is a share of the first one's.
    """

    def __init__(self, template: Stylization, sequence: bool, frame_iterations: int | None) -> None:
        self._template = template
        self._sequence = flag(sequence, "sequence")
        self._frame_iterations = _frame_iterations(frame_iterations)
        self._content: Picture = b""
        self._last: tuple[Picture, Picture] | None = None

    def stylization(self, picture: PictureInput) -> Stylization:
        """What to ask for this picture.

        Raises:
            NotFound, InvalidInput: There is no such file, or it is not a picture.
        """
        self._content = read_picture(picture, "content", content_resize(self._template.settings))
        stylization = dataclasses.replace(self._template, content=self._content)
        if self._last is None:
            return fit_message(stylization)
        settings = dataclasses.replace(
            stylization.settings, initial=Initial.GIVEN, scales=1, iterations=self._frame_iterations
        )
        previous, painted = self._last
        return fit_message(
            dataclasses.replace(stylization, settings=settings, initial=painted, previous_content=previous)
        )

    def happened(self, event: StylizeEvent) -> None:
        """Takes note of an event of the picture under way."""
        match event:
            case Started() if self._frame_iterations is None:
                self._frame_iterations = max(1, round((event.settings.iterations or 1) * SHARE_OF_ITERATIONS))
            case Result() if self._sequence:
                self._last = self._content, event.png

    def failed(self, error: GramletError) -> GramletError:
        """The error, if the picture fails alone.

        Raises:
            GramletError: The error itself, if it is not about the picture: the others would meet it as well.
        """
        of_picture = (error.field or "").rpartition("stylization.")[2].startswith("content")
        if isinstance(error, InvalidInput | NotFound) and of_picture:
            return error
        raise error


def _frame_iterations(given: int | None) -> int | None:
    return None if given is None else whole_number(given, "frame_iterations", least=1)
