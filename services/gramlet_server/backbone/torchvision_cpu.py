"""Importing torchvision where its compiled half does not fit the torch beside it.

PyPI serves torchvision built against CUDA. Beside a CPU build of torch its library of operators does not load, which
torchvision tolerates, all but for two lines: importing it gives `nms` and `qnms` fake implementations, and there is no
fake implementation of an operator that nobody declared. So they are declared first. gramlet calls neither.
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
        FailedPrecondition: It is not installed, or belongs to another torch.
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
            f"torchvision does not fit torch {torch.__version__}: {error}. Install its partner: "
            "torch 2.13.0 goes with torchvision 0.28.0"
        ) from error


def _operators_load(package: Path) -> bool:
    """Loads torchvision's compiled operators as it would itself; loading them twice is harmless."""
    for library in package.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
        return True
    return False


_declared: list[torch.library.Library] = []  # a Library takes its operators along when it is collected


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
