"""Imports torchvision even where its compiled operators do not fit the installed torch.

PyPI's torchvision is built against CUDA. With a CPU build of torch its compiled operators do not load. torchvision
tolerates that, except in two lines that register fake implementations of `nms` and `qnms`: they fail if the operators
are not declared. So this module declares them first. gramlet calls neither.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from gramlet.errors import FailedPrecondition


@cache
def import_torchvision() -> Any:
    """The torchvision package.

    Raises:
        FailedPrecondition: It is not installed, or is built for another torch.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise FailedPrecondition("torchvision is not installed: pip install 'gramlet-server[feature]'")
    if not _operators_load(Path(found.origin).parent):
        _declare_operators()
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError, AttributeError) as error:
        raise FailedPrecondition(
            f"torchvision does not fit torch {torch.__version__}: {error}. Install the torchvision that was released "
            "with it: 0.26 for torch 2.11, 0.27 for 2.12, 0.28 for 2.13"
        ) from error


def _operators_load(package: Path) -> bool:
    """Whether torchvision's compiled operators load. torchvision loads them again, which is harmless."""
    for library in package.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False


_declared: list[torch.library.Library] = []  # a Library removes its operators when it is freed


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
