"""Presets: complete settings of a stylization for each network, and how a request's settings are laid over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gramlet.errors import InvalidInput
from gramlet.feature.types import GramNormalization, Model, StageBalance
from gramlet.stylize.types import Colors, Initial, LineSearch, Optimizer, StylizeSettings

DEFAULT = "default"

LIMITS = {
    "size": (16, 4096),
    "style_size": (16, 4096),
    "iterations": (1, 10_000),
    "history_size": (1, 200),
    "scales": (1, 8),
}
"""Lowest and highest value of what a request may ask for, in the units of the setting."""


def _classic(stages: Mapping[str, int], content_stage: str) -> StylizeSettings:
    """DESIGN section 5: raw Grams, stage weights 1/n² for n channels, style weight 1000, content weight 1."""
    return StylizeSettings(
        preset="classic",
        size=512,
        iterations=300,
        content_stage=content_stage,
        style_stages={stage: 1 / channels**2 for stage, channels in stages.items()},
        content_weight=1.0,
        style_weight=1000.0,
        total_variation_weight=0.0,
        gram_normalization=GramNormalization.NONE,
        stage_balance=StageBalance.NONE,
        initial=Initial.CONTENT,
        seed=0,
        optimizer=Optimizer.LBFGS,
        learning_rate=1.0,
        history_size=20,
        line_search=LineSearch.NONE,
        antialiased=False,
        scales=1,
        style_size=512,
        colors=Colors.STYLE,
    )


def _balanced(
    stages: Iterable[str],
    content_stage: str,
    content_weight: float,
    *,
    scales: int,
    iterations: int,
    antialiased: bool = False,
) -> StylizeSettings:
    """Balanced stages, coarse to fine, the content at stride 8.

    Every stage's style loss starts near its weight, whatever its scale, so that no stage's few large activations
    outshout the others: the trouble of residual networks (Wang, Li, Vasconcelos, CVPR 2021). The coarse scales make
    the large shapes of the style, which no number of iterations at full size makes. A content stage of stride 8 holds
    the content at half the content distance that one of stride 16 costs, at the same style distance: tests/quality.
    """
    return dataclasses.replace(
        _classic({}, content_stage),
        preset=DEFAULT,
        iterations=iterations,
        antialiased=antialiased,
        scales=scales,
        style_stages=dict.fromkeys(stages, 1.0),
        content_weight=content_weight,
        style_weight=1.0,
        gram_normalization=GramNormalization.POSITIONS,
        stage_balance=StageBalance.CONTENT,
    )


_RESNET50 = {"conv1": 64, "maxpool": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
_VGG = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu5_1": 512}

PRESETS: Mapping[str, Mapping[str, StylizeSettings]] = {
    "resnet50": {
        DEFAULT: _balanced(
            ("maxpool", "layer1", "layer2", "layer3"), "layer2", 0.8, scales=4, iterations=400, antialiased=True
        ),
        "classic": _classic(_RESNET50, "layer3"),
    },
    **{
        vgg: {
            DEFAULT: _balanced(_VGG, "relu4_2", 1.0, scales=3, iterations=160),
            "classic": _classic(_VGG, "relu4_2"),
        }
        for vgg in ("vgg16", "vgg19")
    },
}
"""By network, then by name; the network's default first."""


ADAM_RATE = 0.02
"""Learning rate of Adam where the request gives none: a step of Adam moves every pixel by about this much."""


def names(model: Model) -> tuple[str, ...]:
    """The presets of a network, the default first."""
    return tuple(PRESETS[model.backbone])


def resolve(settings: StylizeSettings, model: Model) -> StylizeSettings:
    """The preset's settings with those of the request laid over them: nothing is None any more.

    Raises:
        InvalidInput: There is no such preset or stage, or a number is out of its range.
    """
    presets = PRESETS[model.backbone]
    preset = presets.get(settings.preset or DEFAULT)
    if preset is None:
        raise InvalidInput(
            f"{model.backbone} has no preset {settings.preset!r}; it has {', '.join(presets)}", field="settings.preset"
        )
    given = {name: value for name, value in vars(settings).items() if value is not None}
    if settings.optimizer is Optimizer.ADAM:
        given.setdefault("learning_rate", ADAM_RATE)
    if settings.size is not None:
        given.setdefault("style_size", settings.size)
    resolved = dataclasses.replace(preset, **given)
    for name, (low, high) in LIMITS.items():
        value = getattr(resolved, name)
        if not low <= value <= high:
            raise InvalidInput(f"{value} is not between {low} and {high}", field=f"settings.{name}")
    if resolved.gram_normalization is GramNormalization.NONE and resolved.style_size != resolved.size:
        raise InvalidInput(
            "raw Gram matrices compare pictures of one shape only: leave style_size out, or set gram_normalization to "
            "positions",
            field="settings.style_size",
        )
    _check_stage(resolved.content_stage or "", "settings.content_stage", model)
    check_stages(resolved.style_stages or {}, "settings.style_stages", model)
    return resolved


def check_stages(stages: Iterable[str], field: str, model: Model) -> None:
    """Refuses style stages that the network does not have.

    Raises:
        InvalidInput: Naming the stage's place in the field.
    """
    for index, stage in enumerate(stages):
        _check_stage(stage, f"{field}[{index}].stage", model)


def _check_stage(stage: str, field: str, model: Model) -> None:
    if model.stage(stage) is None:
        known = ", ".join(each.name for each in model.stages)
        raise InvalidInput(f"{model.backbone} has no stage {stage!r}; it has {known}", field=field)
