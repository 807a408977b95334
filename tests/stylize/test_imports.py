"""StylizeService imports no torch: the network, and the optimizer, are at a FeatureService."""

from __future__ import annotations

from pathlib import Path

from gramlet_server.feature.engine import Engine
from gramlet_server.feature.service import FeatureServicer

from tests.clients.servers import FEATURE, serving
from tests.without_torch import output_without_torch, required_by

_SERVE = """
import sys
import gramlet, numpy as np
from queue import SimpleQueue
from gramlet_server.services import SERVICES, Shared
from gramlet_server.runtime.config import FeaturesSettings, ServerSettings, Settings, StoreSettings
from gramlet_server.runtime.server import Server

features, store = sys.argv[1:]
shared = Shared(Settings(features=FeaturesSettings(features=features), store=StoreSettings(store)))
built = SimpleQueue()
server = Server([SERVICES["stylize"](shared)], ServerSettings(port=0))
server.start(built.put)
assert built.get(timeout=60) is None
before, content, style = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
size = {"size": 64, "iterations": 2, "scales": 1, "antialiased": False}
with gramlet.Client(f"127.0.0.1:{server.port}") as client:
    for colors in gramlet.Colors:
        result = client.stylize(content, style, colors=colors, preview_every=1, **size).result()
        assert result.image.size == (64, 48)
    client.stylize(content, style, initial=result.image, previous=before, **size).result()
    with client.stylize(content, style, state_seconds=1e-9, **{**size, "iterations": 10_000}) as events:
        next(event for event in events if isinstance(event, gramlet.Checkpoint))
        client.adjust(events.run_id, style_weight=2.0)
        next(event for event in events if isinstance(event, gramlet.Adjusted))
    client.sweep(content, style, ratios=[1.0], deepest_stages=["layer1"], **size).result()
    client.status()
print("torch" in sys.modules)
shared.close()
server.stop(drain_seconds=0)
"""


def test_calls_need_no_torch(engine: Engine, tmp_path: Path) -> None:
    with serving({FEATURE: FeatureServicer(engine)}) as server:
        assert output_without_torch(_SERVE, f"127.0.0.1:{server.port}", str(tmp_path)) == "False"


def test_the_requirements_of_the_extra_lead_to_no_torch() -> None:
    names = required_by("stylize")
    assert {"grpcio", "pillow"} <= names
    assert not names & {"torch", "torchvision", "safetensors"}
