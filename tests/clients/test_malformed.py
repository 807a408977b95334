"""Hostile and odd files over the wire: the right picture, or an error that names the field; the server stays well."""

from __future__ import annotations

import json
from pathlib import Path

import gramlet
import pytest
from gramlet import Features, InvalidInput, Resize
from gramlet.types import ResizeMode


def test_every_malformed_file_is_right_or_refused_by_field_and_costs_nobody_anything(
    address: str, malformed: Path, png: bytes
) -> None:
    manifest = json.loads((malformed / "manifest.json").read_text())["files"]
    whole = Resize(ResizeMode.LONGEST_SIDE, 96)
    with gramlet.Client(address) as client:
        for name, expected in manifest.items():
            pictures = [png, (malformed / name).read_bytes(), png]
            before, found, after = client.features(pictures, stages="conv1", pooled=True, resize=whole)
            assert isinstance(before, Features), name
            assert isinstance(after, Features), name
            if isinstance(found, InvalidInput):
                assert expected["expect"] != "ok", (name, found)
                assert found.field, name
            else:
                assert isinstance(found, Features), (name, found)
                assert expected["expect"] != "refuse", name
                if expected["width"]:
                    scale = 96 / max(expected["width"], expected["height"])
                    assert found.width == pytest.approx(expected["width"] * scale, abs=1), name
                    assert found.height == pytest.approx(expected["height"] * scale, abs=1), name
        assert client.status().health[gramlet.health.FEATURE] is gramlet.Health.SERVING
