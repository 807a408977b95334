"""Values of any type, for tests of what a client does with them. Used by tests/clients/_async/test_types.py."""

from __future__ import annotations

import dataclasses
import datetime
import os
import struct
from decimal import Decimal
from fractions import Fraction
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gramlet import Style, Tls
from gramlet.embed.drawings import DrawingForm
from gramlet.embed.inputs import MapOptions
from gramlet.embed.types import Item
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.inputs import ExtractionOptions
from gramlet.feature.see_inputs import SeeOptions
from gramlet.feature.types import Extraction, Objective
from gramlet.stylize.inputs import StylizeOptions
from gramlet.train.configuration import Recipe
from gramlet.train.inputs import TrainOptions
from gramlet.train.types import HeadRef
from gramlet.types import Resize
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

EXAMPLES = 2_000 if os.environ.get("GRAMLET_LONG_TESTS") else 25


def png() -> bytes:
    """A small picture as a file."""
    file = BytesIO()
    Image.effect_noise((24, 24), 50).convert("RGB").save(file, format="PNG")
    return file.getvalue()


PNG = png()


class Broken:
    """Every conversion of this object fails, each in another way."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __float__(self) -> float:
        raise KeyError("no number")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no array")


class BrokenFile:
    """A file that cannot be read."""

    def read(self, size: int = -1) -> bytes:
        raise struct.error("no bytes")


class Named(os.PathLike[bytes]):
    """A path of bytes."""

    def __fspath__(self) -> bytes:
        return b"no\xff where.png"


def _closed_file() -> BytesIO:
    file = BytesIO(PNG)
    file.close()
    return file


def _closed_picture() -> Image.Image:
    file = BytesIO(PNG)
    image = Image.open(file)
    file.close()
    return image


def _released() -> memoryview:
    view = memoryview(PNG)
    view.release()
    return view


# Makers, not values: files and pictures are used up, and an array may not be changed by the test before.
_MAKERS: list[Any] = [
    lambda: BytesIO(PNG),
    BytesIO,
    lambda: StringIO("text"),
    _closed_file,
    _closed_picture,
    lambda: Image.open(BytesIO(PNG[:300])),
    lambda: Image.new("RGBA", (3, 3)),
    lambda: Image.new("F", (3, 3), 7.0),
    lambda: Image.new("I", (3, 3), -7),
    lambda: Image.new("CMYK", (3, 3)),
    lambda: Image.new("RGB", (0, 3)),
    _released,
    lambda: memoryview(np.zeros((4, 4), np.float32)),
    lambda: torch.full((3, 4, 4), 0.5, requires_grad=True),
    lambda: torch.full((3, 4, 4), 0.5, dtype=torch.bfloat16),
    lambda: torch.tensor(3),
    lambda: torch.zeros((2, 0)),
    lambda: torch.zeros((3, 4, 4)).to_sparse(),
    lambda: torch.zeros(3, device="meta"),
    lambda: np.broadcast_to(np.zeros((), np.uint8), (10**6, 10**6, 3)),
    lambda: np.array([None, "a"], object),
    lambda: np.zeros(3, [("x", "f4"), ("y", "u1")]),
    lambda: np.ma.masked_array([1.0, 2.0], mask=[True, False]),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.str_("a.jpg"),
    lambda: np.zeros((20, 5)),
    Broken,
    BrokenFile,
    Named,
    object,
    lambda: (number for number in range(3)),
    lambda: range(3),
    lambda: bytearray(PNG),
    lambda: {1: [PNG], None: PNG},
    lambda: {"a": "/nowhere", "b": PNG, "c": 5},
    lambda: [(PNG, 0), (PNG, 1), ("/nowhere.jpg", 1), (b"", 0)],
    lambda: [(PNG, "a", "train"), (PNG, object(), "val")],
    lambda: [PNG, "/nowhere.jpg", 5, None, BrokenFile(), np.zeros(3)],
    lambda: [[0.5, 0.25], [1.0, 0.0]],
    lambda: 10**5000,
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=4),
    st.binary(max_size=8),
    st.sampled_from(
        [
            *(Decimal("64"), Decimal("NaN"), Fraction(1, 3), np.int64(64), np.float32(0.5), np.bool_(True)),
            *("data:image/png;base64,AAAA", "data:", "data:x,%zz", "/nowhere.jpg", "a\0.jpg", "noise", "x" * 5000, "/"),
            *(Path("nowhere.jpg"), Path("/"), datetime.date(2020, 1, 1), DrawingForm.PAGE, dict, len, Image.Image),
            *(Ellipsis, NotImplemented, Style, Resize, os, b"\xff\xd8\xff"),
        ]
    ),
)
_ARRAYS = arrays.arrays(
    st.one_of(arrays.scalar_dtypes(), st.just(np.dtype(">f4"))),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
_SIMPLE = st.one_of(_SCALARS, _ARRAYS, st.sampled_from(_MAKERS).map(lambda make: make()))


def _filled(kind: type[Any]) -> st.SearchStrategy[Any]:
    """A dataclass of the SDK with any values: a caller can make such a one."""
    names = [field.name for field in dataclasses.fields(kind)]
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, _SIMPLE)).map(
        lambda values: dataclasses.replace(_WHOLE[kind], **values)
    )


OBJECTIVE = Objective(content=np.zeros((3, 4, 4), np.float32), content_stage="conv1", content_weight=1.0)
_WHOLE: dict[type[Any], Any] = {
    Style: Style(PNG),
    Item: Item("id", "label", PNG),
    Resize: Resize(),
    Extraction: Extraction(("conv1",)),
    Objective: OBJECTIVE,
    DescentStart: DescentStart(objective=OBJECTIVE, iterations=2),
    Recipe: Recipe(),
    HeadRef: HeadRef("bees"),
    Tls: Tls(),
}

PARAMETERS: st.SearchStrategy[Any] = st.one_of(
    _SIMPLE,
    st.lists(_SIMPLE, max_size=3),
    st.tuples(_SIMPLE, _SIMPLE),
    st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.none()), _SIMPLE, max_size=2),
    st.frozensets(st.one_of(st.integers(), st.text(max_size=2)), max_size=2),
    *(_filled(kind) for kind in _WHOLE),
    st.lists(st.one_of(*(_filled(kind) for kind in (Style, Item, Recipe))), max_size=2),
)
"""Anything."""

_ORDER = ("run_id", "detached", "keep_inputs")
_RUN = ("preview_every", "preview_side", "state_seconds", "timeout")
# Each method: right arguments by position, and the names of its keywords, which are left out where they are right.
CALLS: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "runs": ((), ("kind", "state", "owner", "page_size", "timeout")),
    "run": (("run",), ("kind",)),
    "with_options": ((), ("timeout", "patience", "first_contact")),
    "status": ((), ("timeout",)),
    "model": ((), ("timeout",)),
    "features": ((PNG,), ("timeout", *ExtractionOptions.__annotations__)),
    "extract": (([PNG], _WHOLE[Extraction]), ("in_flight", "timeout")),
    "stylize": (
        (PNG, PNG),
        ("initial", "previous", "run_id", "detached", "keep_inputs", *_RUN, *StylizeOptions.__annotations__),
    ),
    "stylize_set": (
        ([PNG], PNG),
        ("sequence", "frame_iterations", "initial", "preview_every", "timeout", *StylizeOptions.__annotations__),
    ),
    "compare_optimizers": (
        (PNG, PNG),
        ("optimizers", "initial", "timeout", *StylizeOptions.__annotations__),
    ),
    "resume": (("run",), ("detached", *_RUN)),
    "sweep": (
        (PNG, PNG),
        (
            "ratios",
            "deepest_stages",
            "initial",
            "run_id",
            "detached",
            "keep_inputs",
            "timeout",
            *StylizeOptions.__annotations__,
        ),
    ),
    "resume_sweep": (("run",), ("timeout",)),
    "see": (("conv1", [3], [PNG]), ("timeout", *SeeOptions.__annotations__)),
    "descend": ((_WHOLE[DescentStart],), ("timeout",)),
    "adjust": (
        ("run",),
        ("content_weight", "style_weight", "total_variation_weight", "style_stages", "timeout"),
    ),
    "train": (
        ({"a": [PNG], "b": [PNG]},),
        ("name", "recipes", "on_server", "run_id", "detached", "timeout", *TrainOptions.__annotations__),
    ),
    "resume_training": (("run", {"a": [PNG], "b": [PNG]}), ("timeout",)),
    "predict": (("bees", [PNG]), ("top_k", "timeout")),
    "heads": (("bees",), ("timeout",)),
    "head": (("bees",), ("timeout",)),
    "delete_head": (("bees/1",), ("timeout",)),
    "export_head": (("bees",), ("format", "with_backbone", "timeout")),
    "embed": (
        ([PNG, PNG],),
        (
            *("labels", "map_id", "from_map_id", "report_every", "omit_coordinates", "detached", "timeout"),
            *MapOptions.__annotations__,
        ),
    ),
    "relayout_map": (
        ("map",),
        ("map_id", "from_map_id", "report_every", "omit_coordinates", "timeout", *MapOptions.__annotations__),
    ),
    "resume_map": (("map",), ("report_every", "omit_coordinates", "detached", "timeout")),
    "transform": (("map", [PNG]), ("in_flight", "timeout")),
    "maps": ((), ("timeout",)),
    "map": (("map",), ("timeout",)),
    "delete_map": (("map",), ("timeout",)),
    "draw_map": (("map",), ("form", "layout", "width", "title", "timeout")),
}
_OTHERS: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "differentiate": ((_WHOLE[Objective],), ("element_type", "timeout")),
    "client": (("localhost:1",), ("token", "tls", "timeout", "patience", "first_contact")),
}
_NEEDED = {"features": {"stages": "conv1"}, "train": {"name": "bees"}}


@dataclasses.dataclass(frozen=True)
class Case:
    """A call: its arguments, some of them of other types."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn, method: str) -> Case:
    """A call of a method with one or two arguments of other types, or a keyword that does not exist."""
    arguments, names = (CALLS | _OTHERS)[method]
    given, options = list(arguments), dict(_NEEDED.get(method, {}))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from([*range(len(given)), *names]))
        if isinstance(place, int):
            given[place] = draw(PARAMETERS)
        else:
            options[place] = draw(PARAMETERS)
    return Case(tuple(given), options)
