"""The protos name a package for every language, so that generated code lands in gramlet's own names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
FILES = sorted(PROTOS.rglob("*.proto"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_package_of_every_language_follows_from_the_proto_package(path: Path) -> None:
    text = path.read_text()
    package = re.search(r"^package (\S+);", text, re.MULTILINE)
    assert package is not None
    product, service, version = package[1].split(".")
    options = dict(re.findall(r'^option (\w+) = "?([^"\n]+?)"?;$', text, re.MULTILINE))
    assert options == {
        "csharp_namespace": f"{product.capitalize()}.{service.capitalize()}.{version.upper()}",
        "go_package": f"{product}/{service}/{version};{service}{version}",
        "java_multiple_files": "true",
        "java_package": f"{product}.{service}.{version}",
    }
    assert path.parent == PROTOS / product / service / version
