"""Presets: complete settings of a stylization for each network, which the settings of a request override."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gramlet.errors import InvalidInput, did_you_mean
from gramlet.feature.types import GramNormalization, Model, StageBalance, find_stage
from gramlet.stylize.types import Colors, Initial, LineSearch, Optimizer, StylizeSettings

DEFAULT = "default"

ADAM_RATE = 0.02
"""The learning rate of Adam if the request gives none: a step of Adam moves each level by about this much."""
GRADIENT_DESCENT_RATE = 0.02
"""The learning rate of gradient descent if the request gives none: its first step moves the levels by this much on
average. Chosen by docs/optimizers.md."""


def _classic(stages: Mapping[str, int], content_stage: str) -> StylizeSettings:
    """Raw Gram matrices, stage weights 1/n² for n channels, style weight 1000, content weight 1.

    See docs/architecture.md, The mathematics.

    Args:
        stages: The channels of each style stage.
        content_stage: The stage of the content loss.
    """
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
        history_size=100,
        line_search=LineSearch.NONE,
        antialiased=False,
        scales=1,
        style_size=512,
        colors=Colors.STYLE,
        momentum=0.0,
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
    """Balanced stages, coarse to fine.

    The style loss of every stage starts near its weight, for activations of any scale. Otherwise the few large
    activations of some stages of a residual network would dominate the loss (Wang, Li, Vasconcelos, CVPR 2021). The
    coarse scales make the large shapes of the style, which no number of iterations at full size makes. A content stage
    of stride 8 keeps the content at half the content distance of one of stride 16, at the same style distance:
    tests/quality.
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
"""The presets by network and name; the default of each network is its first."""


def presets_of(model: Model) -> Mapping[str, StylizeSettings]:
    """The presets of a network by name, the default first."""
    return PRESETS[model.backbone]


def resolve(settings: StylizeSettings, model: Model) -> StylizeSettings:
    """Complete settings: those of the request, and for each that is None the preset's.

    Raises:
        InvalidInput: There is no such preset or stage, or a number is out of its range.
    """
    presets = PRESETS[model.backbone]
    preset = presets.get(settings.preset or DEFAULT)
    if preset is None:
        raise InvalidInput(
            f"{model.backbone} has no preset {settings.preset!r}; it has {', '.join(presets)}"
            f"{did_you_mean(settings.preset, presets)}",
            field="settings.preset",
        )
    given = {name: value for name, value in vars(settings).items() if value is not None}
    if settings.optimizer is Optimizer.ADAM:
        given.setdefault("learning_rate", ADAM_RATE)
    if settings.optimizer is Optimizer.GRADIENT_DESCENT:
        given.setdefault("learning_rate", GRADIENT_DESCENT_RATE)
    if settings.size is not None:
        given.setdefault("style_size", settings.size)
    resolved = dataclasses.replace(preset, **given)
    _check_style_size(resolved)
    find_stage(resolved.content_stage or "", model.stages, model.backbone, "settings.content_stage")
    check_stages(resolved.style_stages or {}, "settings.style_stages", model)
    return resolved


def _check_style_size(settings: StylizeSettings) -> None:
    if settings.gram_normalization is GramNormalization.NONE and settings.style_size != settings.size:
        raise InvalidInput(
            "raw Gram matrices compare pictures of one shape only: leave style_size out, or set gram_normalization to "
            "positions",
            field="settings.style_size",
        )


def check_stages(stages: Iterable[str], field: str, model: Model) -> None:
    """Refuses style stages that the network does not have.

    Raises:
        InvalidInput: Naming the index of the stage in the field.
    """
    for index, stage in enumerate(stages):
        find_stage(stage, model.stages, model.backbone, f"{field}[{index}].stage")
