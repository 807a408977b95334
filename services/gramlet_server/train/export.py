"""Heads as files: safetensors, and ONNX graphs of a head alone or with the network before it."""

from __future__ import annotations

import io
import json
import threading
import warnings
from collections import OrderedDict

import torch
from gramlet.errors import FailedPrecondition, InvalidInput
from gramlet.train.types import ExportFormat, Head, HeadRef
from torch import Tensor, nn

from gramlet_server.backbone.architecture import DEVIATION, MEAN, architecture
from gramlet_server.process.memory_budget import PROCESS
from gramlet_server.train.calibration import conformal_limit
from gramlet_server.train.classifier import BaseStages, Classifier, State, restore
from gramlet_server.train.memory import bytes_of, export_bytes
from gramlet_server.train.registry import Registry
from gramlet_server.train.typicality import Typicality

OPSET = 18
COVERAGES = (0.8, 0.9, 0.95, 0.99)
"""Of the prediction sets that the metadata describe."""

_exporting = threading.Lock()


class _Graph(nn.Module):
    """(N, C[, H, W]) features, or (N, 3, size, size) pictures in 0..1, → (N, classes) calibrated probabilities and (N,)
    typicality."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, classifier: Classifier, evidence: State, backbone: nn.Module | None) -> None:
        super().__init__()
        self.classifier = classifier
        self.typicality = Typicality(evidence)
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.backbone is not None:
            x = self.backbone((x - self.mean) / self.deviation)
            x = x if self.classifier.late is not None else x.flatten(1)
        logits: Tensor = self.classifier(x)
        return logits.softmax(dim=1), self.typicality(x)


class Exporter:
    """Exports the heads of a store."""

    def __init__(self, registry: Registry, base: BaseStages) -> None:
        self._registry = registry
        self._base = base

    def export(self, ref: HeadRef, file_format: ExportFormat, *, with_backbone: bool = False) -> bytes:
        """A head as a file.

        Args:
            with_backbone: For ONNX, put the network before the head.

        Raises:
            NotFound: There is no such head.
            InvalidInput: A safetensors file with the network.
            FailedPrecondition: The file needs network weights that this process lacks, or onnx is not installed.
        """
        head, content = self._registry.find(ref)
        if file_format is ExportFormat.SAFETENSORS:
            if with_backbone:
                raise InvalidInput("only ONNX files can hold the network", field="with_backbone")
            return self._registry.file(head.name, content)
        network = self._base.weights(head.weights_digest).state.values() if with_backbone or head.stages else ()
        with PROCESS.reserve(export_bytes(bytes_of(network), head.bytes), "head"):
            weights = self._registry.weights(head.name, content)
            classifier = restore(head, weights, self._base)
            return to_onnx(head, classifier, weights.evidence, self._base, with_backbone=with_backbone)


def to_onnx(head: Head, classifier: Classifier, evidence: State, base: BaseStages, *, with_backbone: bool) -> bytes:
    """An ONNX file. Its metadata describe input and output.

    Args:
        evidence: Of the head: typicality is computed from it, and the metadata have the probability from which a class
            is plausible, by coverage.
        with_backbone: Put the network before the head: the input is then `pictures`, (N, 3, size, size), RGB in 0..1,
            resized and cropped as the metadata say; otherwise `features`, the activations of `feature_stage`.
            The outputs are `probabilities`, (N, classes), calibrated, and `typicality`, (N,).

    Raises:
        FailedPrecondition: The file needs network weights that this process lacks, or onnx is not installed.
    """
    backbone = _backbone(head, base) if with_backbone else None
    example = torch.zeros(2, 3, head.size, head.size) if backbone else _example_features(head)
    name = "pictures" if backbone else "features"
    buffer = io.BytesIO()
    try:
        import onnx
    except ImportError:
        raise FailedPrecondition("onnx is not installed on the server: pip install 'gramlet-server[train]'") from None
    # torch's tracing exporter is deprecated, but its successor needs onnxscript too and gives the same graph. Tracing
    # changes global state of torch, hence the lock.
    with _exporting, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(classifier, evidence, backbone),
            (example,),
            buffer,  # type: ignore[arg-type]  # the tracing exporter takes files too
            input_names=[name],
            output_names=["probabilities", "typicality"],
            dynamic_axes={each: {0: "N"} for each in (name, "probabilities", "typicality")},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    buffer.close()
    onnx.helper.set_model_props(model, _metadata(head, name, evidence))
    data: bytes = model.SerializeToString()
    del model
    onnx.checker.check_model(data)
    return data


def _backbone(head: Head, base: BaseStages) -> nn.Module:
    """The network up to the stage from which the head takes its input."""
    if head.backbone != "resnet50":
        raise FailedPrecondition(f"{head.backbone} cannot be exported: export the head alone", field="with_backbone")
    weights = base.weights(head.weights_digest)
    conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
    conv1.load_state_dict({"weight": weights.state["conv1.weight"]})
    stages = OrderedDict([("conv1", conv1), *base.build(head.weights_digest, "maxpool").named_children()])
    names = list(stages)
    return nn.Sequential(OrderedDict((name, stages[name]) for name in names[: names.index(head.feature_stage) + 1]))


def _example_features(head: Head) -> Tensor:
    channels, height, width = architecture(head.backbone).activation_shape(head.feature_stage, head.size, head.size)
    return torch.zeros(2, channels, height, width) if head.stages else torch.zeros(2, channels)


def _metadata(head: Head, name: str, evidence: State) -> dict[str, str]:
    resize = (
        "the central square, as wide as the shorter side s, from ((width - s) / 2, (height - s) / 2) on, fractions "
        f"included, resampled to {head.size} x {head.size} by Lanczos in one step (Pillow: resize, box), RGB in 0..1"
    )
    return {
        "gramlet.head": f"{head.name}/{head.version}",
        "gramlet.classes": json.dumps(head.classes),
        "gramlet.backbone": head.backbone,
        "gramlet.weights_digest": head.weights_digest,
        "gramlet.input": f"pictures: {resize}" if name == "pictures" else f"activations of {head.feature_stage}",
        "gramlet.preprocessing": resize,
        "gramlet.plausible_from": json.dumps(
            {str(coverage): 1 - conformal_limit(evidence["scores"].numpy(), coverage) for coverage in COVERAGES}
        ),
    }
