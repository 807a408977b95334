"""The settings of a request override the preset's, and are checked."""

from __future__ import annotations

import pytest
from gramlet.errors import InvalidInput
from gramlet.stylize.types import Optimizer, StylizeSettings
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize import presets
from gramlet_server.stylize.presets import PRESETS, resolve


def test_a_preset_gives_every_setting() -> None:
    for network in PRESETS.values():
        assert next(iter(network)) == presets.DEFAULT
        for name, preset in network.items():
            assert preset.preset == name
            assert None not in vars(preset).values()


def test_the_settings_of_the_request_override_the_presets(engine: Engine) -> None:
    resolved = resolve(StylizeSettings(preset="classic", iterations=7, style_stages={"layer1": 2.0}), engine.model())
    assert (resolved.iterations, resolved.style_stages) == (7, {"layer1": 2.0})
    assert resolved.style_weight == 1000.0


def test_classic_weighs_a_stage_by_its_channels(engine: Engine) -> None:
    model = engine.model()
    weights = resolve(StylizeSettings(preset="classic"), model).style_stages or {}
    assert list(weights) == ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    for name, weight in weights.items():
        stage = model.stage(name)
        assert stage is not None
        assert weight == 1 / stage.channels**2


def test_each_optimizer_has_its_own_learning_rate(engine: Engine) -> None:
    adam = StylizeSettings(optimizer=Optimizer.ADAM)
    assert resolve(adam, engine.model()).learning_rate == presets.ADAM_RATE
    assert resolve(StylizeSettings(optimizer=Optimizer.ADAM, learning_rate=0.5), engine.model()).learning_rate == 0.5
    steepest = StylizeSettings(optimizer=Optimizer.GRADIENT_DESCENT)
    assert resolve(steepest, engine.model()).learning_rate == presets.GRADIENT_DESCENT_RATE
    assert resolve(StylizeSettings(), engine.model()).learning_rate == 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (StylizeSettings(preset="cubist"), "settings.preset"),
        (StylizeSettings(content_stage="relu4_2"), "settings.content_stage"),
        (StylizeSettings(style_stages={"layer1": 1.0, "layer9": 1.0}), "settings.style_stages[1].stage"),
    ],
)
def test_a_wrong_setting_names_its_field(engine: Engine, settings: StylizeSettings, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        resolve(settings, engine.model())
    assert error.value.field == field
