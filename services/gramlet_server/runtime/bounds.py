"""The bounds of everything that a request can say: one table, checked before any service sees the request.

Each number, text and list of each request has a row, under the field's full name in the protos. Rows that are not ANY
are documented there: `scripts/bounds.py` writes a sentence `Bounds: ...` into the comment of the field, and a test
compares them. A field without a row fails a test.

What depends on more than one field, on the network or on the server's flags is checked by the services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from gramlet.errors import InvalidInput, is_control, shown
from gramlet.types import check_name


@dataclass(frozen=True)
class Number:
    """A finite number in a range, both ends included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_shown(self.low)} to {_shown(self.high)}"

    def check(self, value: float, field: str) -> None:
        """Raises InvalidInput for a number out of the range, or NaN."""
        if not self.low <= value <= self.high:
            raise InvalidInput(f"{value:.15g} is not between {_shown(self.low)} and {_shown(self.high)}", field=field)


@dataclass(frozen=True)
class Text:
    """Text of at most so many characters, none of them a control character (NUL, tab) or the end of a line."""

    longest: int

    def __str__(self) -> str:
        return f"at most {self.longest:,} characters, without control characters and line breaks"

    def check(self, value: str, field: str) -> None:
        """Raises InvalidInput for other text."""
        if len(value) > self.longest:
            raise InvalidInput(f"it has {len(value):,} characters, at most {self.longest:,} are allowed", field=field)
        # What is printable needs no look at each character.
        if not value.isprintable() and (found := next(filter(is_control, value), None)) is not None:
            at = value.index(found)
            raise InvalidInput(f"character {at} is a control character or line break, {shown(found)}", field=field)


@dataclass(frozen=True)
class Name:
    """A name of a run, map or head."""

    def __str__(self) -> str:
        return "1 to 64 letters, digits, '-' or '_'"

    def check(self, value: str, field: str) -> None:
        """Raises InvalidInput for any other text. No text at all is the service's to judge."""
        if value:
            check_name(value, field)


@dataclass(frozen=True)
class Bytes:
    """Bytes, at most so many."""

    longest: int

    def __str__(self) -> str:
        return f"at most {self.longest:,} bytes"

    def check(self, value: bytes, field: str) -> None:
        """Raises InvalidInput for more bytes."""
        if len(value) > self.longest:
            raise InvalidInput(f"it has {len(value):,} bytes, at most {self.longest:,} are allowed", field=field)


@dataclass(frozen=True)
class Anything:
    """Every value of the type is legal, or the size of the message bounds it."""

    def check(self, value: object, field: str) -> None:
        """Accepts everything."""


ANY = Anything()
Rule = Number | Text | Name | Bytes | Anything


@dataclass(frozen=True)
class Several:
    """A list or a map of at most so many values, each with a rule of its own."""

    most: int
    each: Rule = ANY
    key: Rule = ANY

    def __str__(self) -> str:
        each = "" if self.each is ANY else f", each {self.each}"
        return f"at most {self.most:,} of them{each}"


NAME = Name()
_STAGE = Text(64)
_DIGEST = Text(80)
_REASON = Text(4096)
_STAGES = Several(32)
_WEIGHT = Number(0, 1e12)
_RATE = Number(0, 1e6)
_COUNT = Number(0, 1_000_000)
_EPOCHS = Number(0, 100_000)
_SIDE = Number(0, 65_535)
_PERIOD = Number(0, 1e9)
# What several messages say alike.
_WEIGHTS: Mapping[str, Rule | Several] = {
    **dict.fromkeys(("content_weight", "style_weight", "total_variation_weight"), _WEIGHT),
    "style_stages": _STAGES,
}
_OPTIMIZER = {"learning_rate": _RATE, "history_size": Number(0, 10_000), "momentum": Number(0, 1)}
_RUN_IDS = {"resume_run_id": NAME, "watch_run_id": NAME, "run_id": NAME}

BOUNDS: Mapping[str, Mapping[str, Rule | Several]] = {
    "gramlet.tensor.v1.Resize": {"size": _SIDE},
    "gramlet.tensor.v1.Picture": {"encoded": ANY},
    "gramlet.tensor.v1.PictureError": {"code": ANY, "message": _REASON, "field": _REASON},
    "gramlet.tensor.v1.Tensor": {"shape": Several(8, Number(0, 2**40)), "data": ANY},
    "gramlet.feature.v1.GetModelRequest": {"weights_digest": _DIGEST},
    "gramlet.feature.v1.ExtractRequest": {"pictures": Several(4096)},
    "gramlet.feature.v1.Extraction": {"stages": Several(32, _STAGE), "forms": Several(8), "weights_digest": _DIGEST},
    "gramlet.feature.v1.ExtractStreamRequest": {"items": Several(1024)},
    "gramlet.feature.v1.ExtractStreamRequest.Item": {"id": Text(1024)},
    "gramlet.feature.v1.Objective": {
        "content_stage": _STAGE,
        "styles": Several(16),
        **_WEIGHTS,
    },
    "gramlet.feature.v1.Style": {"weight": _WEIGHT},
    "gramlet.feature.v1.StageWeight": {"stage": _STAGE, "weight": _WEIGHT},
    "gramlet.feature.v1.DifferentiateRequest.Setup": {"weights_digest": _DIGEST},
    "gramlet.feature.v1.DifferentiateRequest.Evaluate": {"sequence": ANY},
    "gramlet.feature.v1.Part": {"data": ANY},
    "gramlet.feature.v1.DescendRequest": {"state": ANY},
    "gramlet.feature.v1.DescendRequest.Start": {
        "iterations": _COUNT,
        "preview_every": ANY,
        "preview_side": _SIDE,
        "state_seconds": _PERIOD,
        "weights_digest": _DIGEST,
    },
    "gramlet.feature.v1.DescentSettings": _OPTIMIZER,
    "gramlet.feature.v1.DescentWeights": {"number": ANY, **_WEIGHTS},
    "gramlet.feature.v1.Maximization": {
        "steps": Number(1, 4096),
        "size": Number(32, 512),
        "seed": ANY,
        "preview_every": ANY,
    },
    "gramlet.feature.v1.SeeRequest": {"items": Several(1024)},
    "gramlet.feature.v1.SeeRequest.Start": {
        "stage": _STAGE,
        "channels": Several(4096, _SIDE),
        "patches": Number(0, 64),
        "patch_size": Number(16, 512),
        "weights_digest": _DIGEST,
    },
    "gramlet.feature.v1.SeeRequest.Item": {"id": Text(1024)},
    "gramlet.stylize.v1.StylizeRequest": {
        **_RUN_IDS,
        "preview_every": ANY,
        "preview_side": _SIDE,
        "state_seconds": _PERIOD,
        "weights_digest": _DIGEST,
    },
    "gramlet.stylize.v1.Stylization": {"styles": Several(16)},
    "gramlet.stylize.v1.Settings": {
        "preset": Text(64),
        "size": Number(16, 4096),
        "iterations": Number(1, 10_000),
        "content_stage": _STAGE,
        **_WEIGHTS,
        **_OPTIMIZER,
        "history_size": Number(1, 200),
        "seed": ANY,
        "scales": Number(1, 8),
        "style_size": Number(16, 4096),
    },
    "gramlet.stylize.v1.AdjustRequest": {"run_id": NAME},
    "gramlet.stylize.v1.Adjustment": _WEIGHTS,
    "gramlet.stylize.v1.SweepRequest": {
        **_RUN_IDS,
        "ratios": Several(64, Number(0, 1e12)),
        "deepest_stages": Several(32, _STAGE),
        "weights_digest": _DIGEST,
    },
    "gramlet.train.v1.TrainRequest": {"resume_run_id": NAME, "watch_run_id": NAME, "weights_digest": _DIGEST},
    "gramlet.train.v1.Configuration": {
        "name": NAME,
        "run_id": NAME,
        "recipes": Several(64),
        "dataset_uri": Text(4096),
        "size": _SIDE,
        "views": Number(0, 1000),
        "folds": Number(0, 20),
        "seed": ANY,
    },
    "gramlet.train.v1.Recipe": {
        "stages": Several(8, _STAGE),
        "stage_rates": Several(8, _RATE, _STAGE),
        "stage_learning_rate": _RATE,
        "learning_rate": _RATE,
        "head_rate_factor": _RATE,
        "epochs": _EPOCHS,
        "stage_epochs": _EPOCHS,
        "batch_size": _COUNT,
        "weight_decay": _RATE,
        "warmup_epochs": _EPOCHS,
        "patience": _EPOCHS,
        "label_smoothing": Number(0, 1),
        "seed": ANY,
    },
    "gramlet.train.v1.Entries": {"entries": Several(1_000_000)},
    "gramlet.train.v1.Entry": {"name": Text(4096), "label": Text(256), "set": Text(64), "sha256": Bytes(32)},
    "gramlet.train.v1.LabelledPicture": {"entry": ANY, "unread": _REASON},
    "gramlet.train.v1.PredictRequest": {
        "pictures": Several(4096),
        "top_k": ANY,
        "coverage": Number(0, 1),
        "weights_digest": _DIGEST,
    },
    "gramlet.train.v1.HeadRef": {"name": NAME, "version": ANY},
    "gramlet.train.v1.ListHeadsRequest": {"name": NAME},
    "gramlet.embed.v1.EmbedRequest.Start": {
        "resume_map_id": NAME,
        "watch_map_id": NAME,
        "count": Number(0, 10_000_000),
        "map_id": NAME,
        "from_map_id": NAME,
        "report_every": _COUNT,
        "items_of_map_id": NAME,
        "vector_size": Number(0, 2**22),
        "weights_digest": _DIGEST,
    },
    "gramlet.embed.v1.Settings": {
        "stages": Several(16, _STAGE),
        "sketch_size": Number(64, 65_536),
        "dimensions": Number(1, 3),
        "neighbors": Number(1, 1000),
        "seed": ANY,
        "quality_neighbors": Number(1, 1000),
    },
    "gramlet.embed.v1.Tsne": {
        "perplexities": Several(16, Number(1, 1000)),
        "iterations": Number(1, 1_000_000),
        "early_exaggeration": Number(1, 1000),
        "early_iterations": Number(0, 1_000_000),
        "learning_rate": Number(1e-3, 1e6),
        "angle": Number(0, 1),
    },
    "gramlet.embed.v1.Item": {"id": Text(1024), "label": Text(256)},
    "gramlet.embed.v1.UnreadItem": {"id": Text(1024)},
    "gramlet.embed.v1.TransformRequest.Start": {"map_id": NAME, "weights_digest": _DIGEST},
    "gramlet.embed.v1.DrawMapRequest": {
        "map_id": NAME,
        "layout": Number(0, 16),
        "width": Number(0, 8000),
        "title": Text(256),
    },
    "gramlet.embed.v1.GetMapRequest": {"map_id": NAME},
    "gramlet.embed.v1.DeleteMapRequest": {"map_id": NAME},
    "gramlet.run.v1.ListRunsRequest": {"owner": Text(64), "page_size": ANY, "page_token": Text(4096)},
    "gramlet.run.v1.GetRunRequest": {"run_id": NAME},
    "gramlet.run.v1.StopRunRequest": {"run_id": NAME},
    "gramlet.run.v1.DeleteRunRequest": {"run_id": NAME},
}
"""The rule of each field, by message and field."""


def check_bounds(message: object) -> None:
    """Checks everything that a request says against the table.

    Raises:
        InvalidInput: Something is out of its bounds. The error names the field.
    """
    if isinstance(message, Message):
        for check in _checks(message.DESCRIPTOR):
            check(message, "")


Check = Callable[[Any, str], None]


@cache
def _checks(descriptor: Descriptor) -> tuple[Check, ...]:
    """One check for each field that needs one. Others, such as the bytes of a picture, are not even copied."""
    rules = BOUNDS.get(descriptor.full_name, {})
    return tuple(_fields(descriptor, rules))


def _fields(descriptor: Descriptor, rules: Mapping[str, Rule | Several]) -> Iterator[Check]:
    for field in descriptor.fields:
        rule = rules.get(field.name)
        if field.enum_type is not None:
            yield _known(field)
        if isinstance(rule, Several):
            yield _several(field, rule)
        elif rule is not None and rule is not ANY:
            yield _one(field, rule)
        elif field.message_type is not None and not field.is_repeated:
            yield _inside(field)


def _one(field: FieldDescriptor, rule: Rule) -> Check:
    def check(message: Any, at: str) -> None:
        value = getattr(message, field.name)
        # Unset is the default, which the service knows; 0 that was set is not.
        if message.HasField(field.name) if field.has_presence else value:
            rule.check(value, at + field.name)

    return check


def _several(field: FieldDescriptor, rule: Several) -> Check:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry

    def check(message: Any, at: str) -> None:
        values = getattr(message, field.name)
        name = at + field.name
        if len(values) > rule.most:
            raise InvalidInput(f"{len(values):,} of them; at most {rule.most:,} are allowed", field=name)
        if is_map:
            for key, value in values.items():
                rule.key.check(key, name)
                rule.each.check(value, f"{name}[{shown(key)}]")
        elif field.message_type is not None:
            checks = _checks(field.message_type)
            for index, value in enumerate(values if checks else ()):
                for each in checks:
                    each(value, f"{name}[{index}].")
        elif rule.each is not ANY:
            for index, value in enumerate(values):
                rule.each.check(value, f"{name}[{index}]")

    return check


def _known(field: FieldDescriptor) -> Check:
    """Wire formats tolerate enumerations of newer programs, as replies may have them. Requests may not."""
    enumeration = field.enum_type
    assert enumeration is not None
    known = enumeration.values_by_number

    def check(message: Any, at: str) -> None:
        value = getattr(message, field.name)
        for index, number in enumerate(value if field.is_repeated else (value,)):
            if number not in known:
                place = f"[{index}]" if field.is_repeated else ""
                raise InvalidInput(f"unknown value {number}", field=f"{at}{field.name}{place}")

    return check


def _inside(field: FieldDescriptor) -> Check:
    def check(message: Any, at: str) -> None:
        if message.HasField(field.name):
            for each in _checks(field.message_type):
                each(getattr(message, field.name), f"{at}{field.name}.")

    return check


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) and number < 1e9 else f"{number:g}"
