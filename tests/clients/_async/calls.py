"""Every call of the client, for tests of what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gramlet
import numpy as np
from gramlet.feature.descent_types import DescentStart
from gramlet.feature.types import Extraction, Objective

PICTURE = np.zeros((3, 4, 4), np.float32)
OBJECTIVE = Objective(content=PICTURE, content_stage="conv1", content_weight=3.0)
START = DescentStart(objective=OBJECTIVE, iterations=2)
LABELED = {"bee": [PICTURE], "ant": [PICTURE]}

Call = Callable[[gramlet.AsyncClient], Any]

ONE: dict[str, Call] = {
    "model": lambda client: client.model(),
    "features": lambda client: client.features(PICTURE, stages="conv1"),
    "status": lambda client: client.status(),
    "adjust": lambda client: client.adjust("run", content_weight=1.0),
    "predict": lambda client: client.predict("bees", PICTURE),
    "heads": lambda client: client.heads(),
    "head": lambda client: client.head("bees"),
    "delete_head": lambda client: client.delete_head("bees/1"),
    "export_head": lambda client: client.export_head("bees"),
    "maps": lambda client: client.maps(),
    "map": lambda client: client.map("map"),
    "delete_map": lambda client: client.delete_map("map"),
    "draw_map": lambda client: client.draw_map("map"),
}
"""Calls with one result."""

MANY: dict[str, Call] = {
    "features": lambda client: client.features([PICTURE], stages="conv1"),
    "extract": lambda client: client.extract([PICTURE], Extraction(("conv1",))),
    "descend": lambda client: client.descend(DescentStart(objective=OBJECTIVE, iterations=3)),
    "see": lambda client: client.see("layer1", 5, [PICTURE]),
    "stylize": lambda client: client.stylize(PICTURE, PICTURE),
    "resume": lambda client: client.resume("run"),
    "stylize_set": lambda client: client.stylize_set([PICTURE], PICTURE),
    "compare_optimizers": lambda client: client.compare_optimizers(PICTURE, PICTURE),
    "sweep": lambda client: client.sweep(PICTURE, PICTURE),
    "resume_sweep": lambda client: client.resume_sweep("run"),
    "runs": lambda client: client.runs(),
    "train": lambda client: client.train(LABELED, name="bees"),
    "resume_training": lambda client: client.resume_training("run"),
    "predict": lambda client: client.predict("bees", [PICTURE]),
    "embed": lambda client: client.embed([PICTURE, PICTURE]),
    "resume_map": lambda client: client.resume_map("map"),
    "relayout_map": lambda client: client.relayout_map("map"),
    "transform": lambda client: client.transform("map", [PICTURE]),
}
"""Calls that give an iterator."""
