"""The types of FeatureService: extractions, objectives, and their results."""

from gramlet.feature.inputs import (
    ExtractionOptions,
)
from gramlet.feature.types import (
    Evaluation,
    Extraction,
    Features,
    Form,
    GramNormalization,
    Load,
    Model,
    Objective,
    Stage,
    StageBalance,
    Style,
)

__all__ = [
    "Evaluation",
    "Extraction",
    "ExtractionOptions",
    "Features",
    "Form",
    "GramNormalization",
    "Load",
    "Model",
    "Objective",
    "Stage",
    "StageBalance",
    "Style",
]
