"""What `import gramlet` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from dataclasses import fields
from typing import Any

import gramlet
import gramlet.inputs.pictures
import pytest
from gramlet.feature.inputs import ExtractionOptions
from gramlet.feature.types import Extraction, Form
from gramlet.stylize.inputs import StylizeOptions
from gramlet.stylize.types import Initial, StylizeSettings
from PIL import Image

TWINS = [
    (gramlet.Client, gramlet.AsyncClient),
    (gramlet.Descent, gramlet.AsyncDescent),
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
    forms = {form.value for form in Form}
    made = {field.name for field in fields(Extraction)} - {"forms", "triangle", "weights_digest"}
    assert made | forms == set(ExtractionOptions.__annotations__)
    assert {member.value for member in Initial} == {"content", "style", "noise", "given"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, gramlet\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'PIL', 'rich', 'scipy', 'sklearn', 'gramlet_server'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


NAMESPACES = (gramlet, gramlet.feature, gramlet.stylize, gramlet.train, gramlet.embed)


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda namespace: namespace.__name__)
def test_every_namespace_lists_its_names_once(namespace: Any) -> None:
    assert sorted(set(namespace.__all__)) == namespace.__all__
    for name in namespace.__all__:
        assert getattr(namespace, name) is not None


def types_in(hint: Any) -> set[type[Any]]:
    """The classes of gramlet in a type, without those that have no name of their own in it."""
    found = {hint} if isinstance(hint, type) and hint.__module__.startswith("gramlet.") else set()
    for part in typing.get_args(hint):
        found |= types_in(part)
    origin = typing.get_origin(hint)
    return found | (types_in(origin) if isinstance(origin, type) else set())


ALIASES = ("PictureInput", "StyleInput", "PicturesInput", "HeadInput", "ItemsInput", "SeenInput")


def hints_of(thing: Any) -> dict[str, Any]:
    module = sys.modules[thing.__module__]
    names = {**vars(gramlet.inputs.pictures), "Folder": gramlet.Folder, "Image": Image}
    for service in (gramlet.feature, gramlet.stylize, gramlet.train, gramlet.embed):
        inputs = sys.modules[f"{service.__name__}.inputs"]
        imports_some = any(getattr(value, "__module__", "") == inputs.__name__ for value in vars(module).values())
        if imports_some or service.__name__.rpartition(".")[2] in module.__name__.split("."):
            names |= vars(inputs)
    names |= vars(module)
    # Aliases such as PictureInput are strings, for the sake of PIL.
    aliases = {name: typing.ForwardRef(value) for name, value in names.items() if name in ALIASES}
    return typing.get_type_hints(thing, names | aliases)


def test_every_type_that_the_client_takes_or_gives_has_a_public_name() -> None:
    methods = [member for member in vars_of(gramlet.Client) if callable(member)]
    waiting = set().union(*(types_in(hint) for method in methods for hint in hints_of(method).values()))
    seen: set[type[Any]] = set()
    while waiting:
        kind = waiting.pop()
        seen.add(kind)
        members = [member.fget for member in vars(kind).values() if isinstance(member, property)]
        hints = [*hints_of(kind).values(), *(hint for member in members for hint in hints_of(member).values())]
        waiting |= set().union(*(types_in(hint) for hint in hints)) - seen
    public = {id(getattr(namespace, name)) for namespace in NAMESPACES for name in namespace.__all__}
    assert {kind.__qualname__ for kind in seen if id(kind) not in public} == set()


def vars_of(kind: type[Any]) -> list[Any]:
    """The public methods of a class, its bases' included."""
    return [getattr(kind, name) for name in dir(kind) if not name.startswith("_")]
