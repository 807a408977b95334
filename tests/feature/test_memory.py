"""What a pass is told to take, beside the peak of a process that runs one."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import pathlib, re, sys
import numpy as np
from gramlet.feature.types import Extraction, Form, Objective, Style
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.feature.memory import PassMemory
from gramlet_server.process.memory_budget import Budget

def peak():
    # Not ru_maxrss, which begins with that of the process that started this one.
    return 1024 * int(re.search("VmHWM:(.*) kB", pathlib.Path("/proc/self/status").read_text())[1])

def work(side):
    picture = np.full((3, side, side), 0.5, np.float32)
    if kind == "extraction":
        list(engine.extract([picture], Extraction(("layer4",), (Form.POOLED,))))
    else:
        style = Style(np.full((3, 64, 64), 0.5, np.float32))
        stages = {"content_stage": "layer4", "style_stages": {"layer4": 1.0}}
        objective = Objective(content=picture, content_weight=1.0, styles=(style,), style_weight=1.0, **stages)
        with engine.differentiate(objective) as differentiation:
            differentiation.evaluate(picture)

kind, side, limit = sys.argv[1], 1024, int(sys.argv[2])
engine = Engine(load_network("resnet50", "random:0"))
work(64)
budget = Budget(limit)
memory = PassMemory(engine.passes.network.architecture, True, budget)
arguments = (side * side, ["layer4"]) + (("picture",) if kind == "extraction" else (False, "picture"))
place = getattr(memory, kind)(*arguments)  # large blocks are mapped while it is held: the budget is tight
told, before = budget.reserved, peak()
work(side)
print(told, peak() - before)
"""


@pytest.mark.parametrize(("kind", "limit"), [("extraction", 2**29), ("gradient", 3 * 2**30)])
def test_a_pass_takes_no_more_than_is_reserved_for_it(kind: str, limit: int) -> None:
    command = [sys.executable, "-c", PROGRAM, kind, str(limit)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    told, taken = map(int, found.stdout.split())
    assert 0.5 * told < taken < 1.1 * told
