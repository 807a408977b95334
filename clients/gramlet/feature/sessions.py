"""What a call of FeatureService remembers, so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gramlet.errors import GramletError, InternalError, OtherWeights, Unavailable
from gramlet.feature.objective_wire import decode_evaluation_reply, decode_ready, encode_evaluate, encode_setup
from gramlet.feature.types import Evaluation, Extraction, Features, Objective
from gramlet.feature.wire import decode_extract_reply, encode_extract_items, encode_extract_start
from gramlet.inputs.pictures import PictureInput, read_picture
from gramlet.inputs.values import checked
from gramlet.tensor.fitting import picture_bytes
from gramlet.transport.rpc import Message
from gramlet.transport.window import Window
from gramlet.types import Array, ElementType, Picture, short_digest


class CorpusWindow(Window[PictureInput, Picture, Features]):
    """The pictures of an ExtractStream that are under way, all of them for one network: the first that answers.

    The server may answer them in any order.
    """

    def __init__(self, extraction: Extraction, in_flight: int) -> None:
        super().__init__(in_flight)
        self._extraction = checked(Extraction, extraction, "extraction")

    def request(self) -> Message:
        """The first message of a connection."""
        return encode_extract_start(self._extraction)

    def _read(self, item: PictureInput) -> Picture:
        return read_picture(item, resize=self._extraction.resize)

    def _size(self, item: Picture) -> int:
        return picture_bytes(item)

    def _encode(self, items: Mapping[int, Picture]) -> Message:
        return encode_extract_items((str(number), picture) for number, picture in items.items())

    def _decode(self, message: Message) -> list[tuple[int, Features | GramletError]]:
        try:
            outcomes = [(int(identifier), outcome) for identifier, outcome in decode_extract_reply(message)]
        except ValueError:
            raise InternalError("the server answers for a picture that it was not sent") from None
        if not self._extraction.weights_digest:
            first = next((outcome for _, outcome in outcomes if isinstance(outcome, Features)), None)
            digest = "" if first is None else first.weights_digest
            self._extraction = dataclasses.replace(self._extraction, weights_digest=digest)
        return outcomes


class DifferentiationState:
    """An objective at the network, across any number of connections, always with the same weights."""

    def __init__(self, objective: Objective, element_type: ElementType, weights_digest: str = "") -> None:
        self._element_type = element_type
        self._sequence = 0
        self._lost = False
        self.objective = objective
        self.weights_digest = weights_digest
        self.reconnects = 0

    def setup(self, objective: Objective) -> Message:
        """The message that sets an objective."""
        return encode_setup(objective, self._element_type, self.weights_digest)

    def evaluate(self, picture: Array) -> Message:
        """The message that asks for loss and gradient at a picture, which `read_point` has read."""
        self._sequence += 1
        return encode_evaluate(picture, self._sequence)

    def ready(self, message: Message, objective: Objective) -> None:
        """Takes the answer to a setup.

        Raises:
            OtherWeights: Another network answers than before.
        """
        digest = decode_ready(message)
        if self.weights_digest and digest != self.weights_digest:
            raise OtherWeights(
                f"the network changed from weights {short_digest(self.weights_digest)} to {short_digest(digest)} "
                "during the work"
            )
        self.weights_digest = digest
        self.objective = objective
        self.reconnects += self._lost
        self._lost = False

    def evaluation(self, message: Message) -> Evaluation | None:
        """The answer to the last `evaluate`; None for an answer to an older one."""
        sequence, evaluation = decode_evaluation_reply(message)
        return evaluation if sequence == self._sequence else None

    def broken(self, error: GramletError) -> None:
        """The stream is lost."""
        self._lost = self._lost or isinstance(error, Unavailable)
