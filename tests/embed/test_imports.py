"""EmbedService imports no torch, and imports matplotlib only when it draws."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

_WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, NoTorch())
"""

_SERVE = """
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
    command = [sys.executable, "-c", _WITHOUT_TORCH + _SERVE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "20 False True False"), done.stderr


def test_the_requirements_of_the_extra_lead_to_no_torch() -> None:
    seen: set[tuple[str, str]] = set()
    wanted = [("gramlet-server", "embed")]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted += [(requirement.name, each) for each in (requirement.extras or {""})]
    names = {name.lower() for name, _ in seen}
    assert "opentsne" in names
    assert not names & {"torch", "torchvision"}
