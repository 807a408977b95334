"""EmbedService imports no torch, and imports matplotlib only when it draws."""

from __future__ import annotations

from pathlib import Path

from tests.without_torch import output_without_torch, required_by

_SERVE = """
import sys
import gramlet, numpy as np
from gramlet_server.services import SERVICES, Shared
from gramlet_server.runtime.config import Settings, ServerSettings, StoreSettings
from gramlet_server.runtime.server import Server
from queue import SimpleQueue

shared = Shared(Settings(store=StoreSettings(sys.argv[1])))
shared.__dict__["features"] = None  # vectors need no network
built = SimpleQueue()
server = Server([SERVICES["embed"](shared)], ServerSettings(port=0))
server.start(built.put)
assert built.get(timeout=60) is None
vectors = np.random.default_rng(0).normal(size=(20, 5))
with gramlet.Client(f"127.0.0.1:{server.port}") as client:
    style_map = client.embed(vectors, iterations=20, map_id="m").result()
    assert client.map("m").map_id == client.maps()[0].map_id == "m"
    assert list(client.transform("m", vectors[:1]))
    before_drawing = "matplotlib" in sys.modules
    assert client.draw_map("m", width=300)
    client.delete_map("m")
print(len(style_map.places), before_drawing, "matplotlib" in sys.modules, "torch" in sys.modules)
server.stop(drain_seconds=0)
"""


def test_calls_need_no_torch_and_only_drawing_needs_matplotlib(tmp_path: Path) -> None:
    assert output_without_torch(_SERVE, str(tmp_path)) == "20 False True False"


def test_the_requirements_of_the_extra_lead_to_no_torch() -> None:
    names = required_by("embed")
    assert "opentsne" in names
    assert not names & {"torch", "torchvision"}
