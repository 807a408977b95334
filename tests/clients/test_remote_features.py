"""RemoteFeatures, the source of features that a server reads from another server."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import gramlet
import numpy as np
import pytest
from gramlet import Extraction, Form, Objective
from gramlet.errors import Unavailable
from gramlet_server.feature.engine import Engine
from gramlet_server.process.identity import Caller, act_for
from gramlet_server.remote_features import RemoteFeatures

from tests.clients.scripts import GONE, OBJECTIVE, PICTURE, differentiating
from tests.clients.servers import FEATURE, Script, serving


def test_a_remote_source_is_a_source_like_the_engine(address: str, engine: Engine, pixels: Any) -> None:
    source = RemoteFeatures(gramlet.Client(address))
    assert source.address == address
    assert source.model().weights_digest == engine.model().weights_digest
    extraction = Extraction(("layer1",), (Form.GRAM,))
    outcomes = list(source.extract([pixels, b"no picture"], extraction))
    assert [type(outcome) for outcome in outcomes] == [gramlet.Features, gramlet.InvalidInput]
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 255
    objective = Objective(content=x * 0.5, content_stage="layer1", content_weight=1.0, style_stages={"conv1": 1.0})
    with source.differentiate(objective) as remote, engine.differentiate(objective) as local:
        assert remote.evaluate(x).loss == pytest.approx(local.evaluate(x).loss, rel=1e-5)
        assert remote.reconnects == 0
    source.close()


def test_a_picture_of_one_name_is_not_known_to_another(address: str) -> None:
    source = RemoteFeatures(gramlet.Client(address))
    picture = np.full((3, 48, 48), 0.625, np.float32)  # no other test sends it

    def passes(name: str) -> int:
        context = copy_context()
        context.run(act_for, Caller(name))
        [features] = context.run(lambda: list(source.extract([picture], Extraction(("conv1",), (Form.POOLED,)))))
        assert isinstance(features, gramlet.Features)
        return features.timing.batch_size

    assert [passes(name) for name in ("alice", "alice", "bob", "bob")] == [1, 0, 1, 0]
    source.close()


def test_an_evaluation_goes_on_at_the_next_server() -> None:
    script = Script(Differentiate=[differentiating(2), GONE, differentiating(0), differentiating(9)])
    with serving({FEATURE: script}) as server:
        source = RemoteFeatures(gramlet.Client(f"127.0.0.1:{server.port}"), patience=30.0)
        with source.differentiate(OBJECTIVE) as remote:
            assert [remote.evaluate(PICTURE).loss for _ in range(5)] == [3.0] * 5
            assert remote.reconnects == 2
        source.close()


def test_a_lost_network_is_given_up_when_patience_is_over() -> None:
    with serving({FEATURE: Script(Differentiate=[differentiating(1), GONE])}) as server:
        source = RemoteFeatures(gramlet.Client(f"127.0.0.1:{server.port}"), patience=0.3)
        with source.differentiate(OBJECTIVE) as remote:
            remote.evaluate(PICTURE)
            with pytest.raises(Unavailable, match="going away"):
                remote.evaluate(PICTURE)
        source.close()
