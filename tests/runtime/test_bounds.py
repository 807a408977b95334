"""Everything that a request can say has bounds, which are checked before its service sees it and are documented."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from gramlet.embed.v1 import embed_pb2
from gramlet.errors import InvalidInput
from gramlet.feature.v1 import feature_pb2
from gramlet.stylize.v1 import stylize_pb2
from gramlet.train.v1 import train_pb2
from gramlet_server.runtime.bounds import ANY, BOUNDS, Number, check_bounds

from tests.guards.product import ROOT

_NEED_NO_ROW = {FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE}


def messages() -> dict[str, Descriptor]:
    """Every message that can be part of a request, by its full name."""
    found: dict[str, Descriptor] = {}

    def add(message: Descriptor) -> None:
        if message.full_name not in found and not message.GetOptions().map_entry:
            found[message.full_name] = message
            for field in message.fields:
                if field.message_type is not None:
                    add(field.message_type)

    for name in ("feature", "stylize", "train", "embed", "run"):
        services = import_module(f"gramlet.{name}.v1.{name}_pb2").DESCRIPTOR.services_by_name.values()
        for service in services:
            for method in service.methods:
                add(method.input_type)
    return found


def fields() -> Iterator[tuple[str, str]]:
    for message in messages().values():
        for field in message.fields:
            if field.is_repeated or field.type not in _NEED_NO_ROW:
                yield message.full_name, field.name


def test_every_field_of_every_request_has_a_row_and_every_row_a_field() -> None:
    assert {(message, field) for message, rules in BOUNDS.items() for field in rules} == set(fields())


def test_every_floating_point_number_is_bounded() -> None:
    floating = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
    for message in messages().values():
        for field in message.fields:
            rule: Any = BOUNDS.get(message.full_name, {}).get(field.name)
            if field.type in floating:
                rule = rule.each if field.is_repeated else rule
                assert isinstance(rule, Number), (message.full_name, field.name)
                assert math.isfinite(rule.high)
            elif field.is_repeated:
                assert rule is not ANY, (message.full_name, field.name)


def test_the_protos_document_the_bounds() -> None:
    checked = subprocess.run([sys.executable, "scripts/bounds.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (embed_pb2.GetMapRequest(map_id="A" * 300), "map_id"),
        (embed_pb2.GetMapRequest(map_id="../x"), "map_id"),
        (embed_pb2.DrawMapRequest(title="x" * 257), "title"),
        (
            embed_pb2.EmbedRequest(
                start=embed_pb2.EmbedRequest.Start(
                    settings=embed_pb2.Settings(tsne=embed_pb2.Tsne(learning_rate=1e308))
                )
            ),
            "start.settings.tsne.learning_rate",
        ),
        (feature_pb2.ExtractRequest(extraction=feature_pb2.Extraction(forms=[1] * 9)), "extraction.forms"),
        *(
            (
                stylize_pb2.StylizeRequest(
                    stylization=stylize_pb2.Stylization(settings=stylize_pb2.Settings(**{name: value}))  # type: ignore[arg-type]
                ),
                f"stylization.settings.{name}",
            )
            for name, value in {"size": 8, "style_size": 100_000, "iterations": 0, "history_size": 201}.items()
        ),
        (
            stylize_pb2.AdjustRequest(
                adjustment=stylize_pb2.Adjustment(
                    style_stages=[feature_pb2.StageWeight(stage="conv1", weight=math.nan)]
                )
            ),
            "adjustment.style_stages[0].weight",
        ),
        (
            train_pb2.TrainRequest(
                configuration=train_pb2.Configuration(recipes=[train_pb2.Recipe(stage_rates={"layer4": math.inf})])
            ),
            "configuration.recipes[0].stage_rates[layer4]",
        ),
        (
            feature_pb2.ExtractRequest(extraction=feature_pb2.Extraction(forms=[1, 77])),  # type: ignore[list-item]
            "extraction.forms[1]",
        ),
        (
            stylize_pb2.StylizeRequest(
                stylization=stylize_pb2.Stylization(settings=stylize_pb2.Settings(colors=-1))  # type: ignore[arg-type]
            ),
            "stylization.settings.colors",
        ),
        (
            train_pb2.TrainRequest(
                configuration=train_pb2.Configuration(
                    entries=train_pb2.Entries(entries=[train_pb2.Entry(label="x" * 257)])
                )
            ),
            "configuration.entries.entries[0].label",
        ),
    ],
)
def test_what_is_out_of_bounds_is_invalid_and_named(message: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_bounds(message)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["a\0b", "a\tb", "a\nb", "a\x7fb", "a\x85b", "a\u2028b"])
def test_no_text_has_a_control_character(text: str) -> None:
    for message in (
        embed_pb2.EmbedRequest(item=embed_pb2.Item(id=text)),
        embed_pb2.EmbedRequest(item=embed_pb2.Item(label=text)),
        embed_pb2.DrawMapRequest(title=text),
        train_pb2.TrainRequest(
            configuration=train_pb2.Configuration(entries=train_pb2.Entries(entries=[train_pb2.Entry(label=text)]))
        ),
    ):
        with pytest.raises(InvalidInput, match="character 1 is a control character"):
            check_bounds(message)


@pytest.mark.parametrize("text", ["né", "猫 と 犬", "\U0001f41d\u200d", "a\u202eb", "\xa0", "a\\nb"])
def test_all_other_text_is_legal(text: str) -> None:
    check_bounds(embed_pb2.EmbedRequest(item=embed_pb2.Item(id=text, label=text)))


def test_what_is_unset_is_left_to_the_service() -> None:
    check_bounds(embed_pb2.EmbedRequest(start=embed_pb2.EmbedRequest.Start(settings=embed_pb2.Settings())))
    check_bounds(b"not a message")
