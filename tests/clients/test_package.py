"""What `import gramlet` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from typing import Any

import gramlet
import pytest
from gramlet.feature.inputs import ExtractionOptions, make_extraction
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import Initial, StylizeSettings

TWINS = [
    (gramlet.Client, gramlet.AsyncClient),
    (gramlet.Differentiation, gramlet.AsyncDifferentiation),
    (gramlet.Events, gramlet.AsyncEvents),
    (gramlet.Stylizing, gramlet.AsyncStylizing),
]


def public(kind: type[Any]) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("kind", "twin"), TWINS, ids=lambda kind: kind.__name__)
def test_the_asynchronous_twin_has_the_same_calls_with_the_same_parameters(kind: type[Any], twin: type[Any]) -> None:
    members, twins = public(kind), public(twin)
    assert members.keys() == twins.keys()
    for name in ["__init__", *members]:
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property):
            continue
        one, other = inspect.signature(getattr(kind, name)), inspect.signature(getattr(twin, name))
        assert [shape(p) for p in one.parameters.values()] == [shape(p) for p in other.parameters.values()], name


def shape(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return parameter.name, parameter.kind, parameter.default


@pytest.mark.parametrize("kind", [gramlet.Client, gramlet.AsyncClient])
def test_every_public_call_is_explained(kind: type[Any]) -> None:
    assert [name for name, member in public(kind).items() if not member.__doc__] == []


def test_everything_exported_is_there_and_nothing_else() -> None:
    assert sorted(gramlet.__all__) == gramlet.__all__
    for name in gramlet.__all__:
        assert hasattr(gramlet, name)
    errors = {error.__name__ for error in gramlet.GramletError.__subclasses__()}
    assert errors <= set(gramlet.__all__)


def test_options_are_the_fields_of_what_they_make() -> None:
    settings = {field.name for field in fields(StylizeSettings)} - {"initial"}
    assert settings == set(StylizeOptions.__annotations__)
    assert set(inspect.signature(make_extraction).parameters) == set(ExtractionOptions.__annotations__)
    assert {member.value for member in Initial} == {"content", "style", "noise", "given"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, gramlet\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'PIL', 'rich', 'scipy', 'sklearn', 'gramlet_server'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"
