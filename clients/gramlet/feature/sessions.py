"""What a call of FeatureService remembers so that it can go on after its server is lost. No gRPC, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from gramlet.errors import FailedPrecondition, GramletError, Overloaded, Unavailable
from gramlet.feature.objective_wire import decode_evaluation, encode_evaluate, encode_setup
from gramlet.feature.types import Evaluation, Extraction, Features, Objective
from gramlet.feature.v1 import feature_pb2
from gramlet.feature.wire import decode_outcome, encode_extract_item, encode_extraction
from gramlet.inputs import PictureInput, read_picture
from gramlet.types import Array, ElementType, Picture


class CorpusWindow:
    """The pictures of an ExtractStream that are under way: a bounded number, answered in the order they came.

    A picture that cannot be read is its own outcome and never travels. After a break everything unanswered is sent
    again; extraction has no side effects.
    """

    def __init__(self, extraction: Extraction, in_flight: int) -> None:
        self._setup = feature_pb2.ExtractStreamRequest(extraction=encode_extraction(extraction))
        self._in_flight = max(1, in_flight)
        self._unanswered: dict[str, Picture] = {}
        self._unsent: list[str] = []
        self._is_set_up = False
        self._outcomes: dict[int, Features | GramletError] = {}
        self._added = 0
        self._told = 0

    @property
    def has_room(self) -> bool:
        """Whether another picture may be added."""
        return self._added - self._told < self._in_flight

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._unanswered)

    @property
    def is_empty(self) -> bool:
        """Whether everything was told."""
        return self._told == self._added

    def add(self, picture: PictureInput) -> None:
        """Takes the next picture."""
        number = self._added
        self._added += 1
        try:
            self._unanswered[str(number)] = read_picture(picture, f"pictures[{number}]")
        except GramletError as error:
            self._outcomes[number] = error
        else:
            self._unsent.append(str(number))

    def messages(self) -> Iterator[feature_pb2.ExtractStreamRequest]:
        """What has to be sent now."""
        if not self._is_set_up:
            self._is_set_up = True
            yield self._setup
        unsent, self._unsent = self._unsent, []
        for name in unsent:
            yield encode_extract_item(name, self._unanswered[name])

    def accept(self, message: feature_pb2.ExtractStreamResponse) -> None:
        """Takes an answer.

        Raises:
            Overloaded, Unavailable: The server could not take this picture now; send everything unanswered again.
        """
        outcome = decode_outcome(message.result)
        if isinstance(outcome, Overloaded | Unavailable):
            raise outcome
        if isinstance(outcome, GramletError):
            outcome.field = f"pictures[{message.id}]"  # its place among the caller's pictures, not in a message
        if self._unanswered.pop(message.id, None) is not None:
            self._outcomes[int(message.id)] = outcome

    def broken(self) -> None:
        """The stream is lost: everything unanswered is to be sent again."""
        self._is_set_up = False
        self._unsent = list(self._unanswered)

    def outcomes(self) -> Iterator[Features | GramletError]:
        """What can be told now, in order."""
        while self._told in self._outcomes:
            self._told += 1
            yield self._outcomes.pop(self._told - 1)


class DifferentiationState:
    """An objective at the network, across any number of connections, always to the same weights."""

    def __init__(self, objective: Objective, element_type: ElementType) -> None:
        self._element_type = element_type
        self._sequence = 0
        self._lost = False
        self.objective = objective
        self.weights_digest = ""
        self.reconnects = 0

    def setup(self, objective: Objective) -> feature_pb2.DifferentiateRequest:
        """The message that puts an objective in place."""
        return encode_setup(objective, self._element_type)

    def evaluate(self, picture: Array) -> feature_pb2.DifferentiateRequest:
        """The message that asks for loss and gradient at a picture."""
        self._sequence += 1
        return encode_evaluate(picture, self._sequence)

    def ready(self, message: feature_pb2.DifferentiateResponse, objective: Objective) -> None:
        """Takes the answer to a setup.

        Raises:
            FailedPrecondition: Another network answers than before.
        """
        digest = message.ready.weights_digest
        if self.weights_digest and digest != self.weights_digest:
            raise FailedPrecondition(
                f"the network changed from weights {self.weights_digest[:12]} to {digest[:12]} during the work"
            )
        self.weights_digest = digest
        self.objective = objective
        self.reconnects += self._lost
        self._lost = False

    def evaluation(self, message: feature_pb2.DifferentiateResponse) -> Evaluation | None:
        """The answer to the last `evaluate`; None for an answer to an older one."""
        if message.evaluation.sequence != self._sequence:
            return None
        return decode_evaluation(message.evaluation)

    def broken(self, error: GramletError) -> None:
        """The stream is lost."""
        self._lost = self._lost or isinstance(error, Unavailable)
