"""Exported heads answer as Predict does."""

import io
import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from gramlet.errors import FailedPrecondition, InvalidInput, NotFound
from gramlet.train.configuration import HeadKind, Optimizer, Recipe, Strategy, TrainOrder
from gramlet.train.predictions import PredictOptions
from gramlet.train.types import ExportFormat, HeadRef
from gramlet_server.train.classifier import BaseStages, extraction, feature_of
from gramlet_server.train.export import Exporter
from gramlet_server.train.predict import Predictor
from gramlet_server.train.registry import Registry
from PIL import Image
from safetensors.torch import load

from .conftest import Client, configuration, picture

TRAINING = 16
"""Training pictures of `data_set`."""
RECIPES = {
    "mlp": Recipe(epochs=5),
    "linear": Recipe(kind=HeadKind.LINEAR, optimizer=Optimizer.LBFGS, epochs=5),
    "unfrozen": Recipe(
        strategy=Strategy.ALL_AT_ONCE, stages=("layer4",), stage_epochs=1, batch_size=8, stage_learning_rate=1e-3
    ),
}


@pytest.fixture(params=RECIPES)
def head(request, runs, data_set):
    return Client(runs, data_set).run(TrainOrder(configuration(data_set, RECIPES[request.param]))).head


def predicted(engine, store, base, head, pictures) -> tuple[np.ndarray, list[float]]:
    """Probabilities (N, classes) and typicality (N,) as the server gives them."""
    _, predictions = Predictor(engine, Registry(store), base).predict(
        HeadRef(head.name, head.version), pictures, PredictOptions(99)
    )
    probabilities = [
        [next(i.probability for i in p.classes if i.label == label) for label in head.classes] for p in predictions
    ]
    return np.array(probabilities), [p.typicality for p in predictions]


def run(data: bytes, name: str, inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "typicality"], {name: inputs.astype(np.float32)})


def agree(found: list[np.ndarray], probabilities: np.ndarray, typicality: list[float]) -> None:
    np.testing.assert_allclose(found[0], probabilities, atol=1e-4)
    # A distance that equals that of a training picture, but for rounding, may count as nearer or as farther.
    assert np.abs(found[1] - typicality).max() <= 1.01 / (1 + TRAINING)


def test_onnx_of_network_and_head_agrees_with_predict(head, engine, store, base, data_set):
    names = ["val/red/0.png", "val/green/1.png", "train/red/3.png"]
    files = [*(data_set.files[name] for name in names), *(picture("blue", seed) for seed in range(2))]
    data = Exporter(Registry(store), base).export(HeadRef(head.name), ExportFormat.ONNX, with_backbone=True)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1) / 255 for file in files])
    probabilities, typicality = predicted(engine, store, base, head, files)
    agree(run(data, "pictures", pixels), probabilities, typicality)
    agree(run(data, "pictures", pixels[:1]), probabilities[:1], typicality[:1])
    assert min(typicality[:3]) > max(typicality[3:])


def test_onnx_of_the_head_alone_takes_what_the_network_gives(head, engine, store, base, data_set):
    files = [data_set.files["val/red/0.png"], data_set.files["val/green/1.png"]]
    data = Exporter(Registry(store), base).export(HeadRef(head.name), ExportFormat.ONNX)
    features = [feature_of(f, head.feature_stage) for f in engine.extract(files, extraction([head.feature_stage], 64))]
    probabilities, typicality = predicted(engine, store, base, head, files)
    agree(run(data, "features", np.stack(features)), probabilities, typicality)


def test_an_onnx_file_says_what_goes_in_and_what_comes_out(runs, store, base, data_set):
    head = Client(runs, data_set).run(TrainOrder(configuration(data_set, RECIPES["linear"]))).head
    data = Exporter(Registry(store), base).export(HeadRef("colors"), ExportFormat.ONNX)
    model = onnx.load_from_string(data)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(metadata["gramlet.classes"]) == ["green", "red"]
    assert metadata["gramlet.weights_digest"] == head.weights_digest
    assert "64 x 64" in metadata["gramlet.preprocessing"]


def test_a_safetensors_file_is_what_is_stored(runs, store, base, data_set):
    head = Client(runs, data_set).run(TrainOrder(configuration(data_set, RECIPES["mlp"]))).head
    exporter = Exporter(Registry(store), base)
    data = exporter.export(HeadRef("colors", 1), ExportFormat.SAFETENSORS)
    assert len(data) == head.bytes
    assert "head.hidden.weight" in load(data)
    with pytest.raises(InvalidInput, match="ONNX"):
        exporter.export(HeadRef("colors"), ExportFormat.SAFETENSORS, with_backbone=True)
    with pytest.raises(NotFound):
        exporter.export(HeadRef("shapes"), ExportFormat.ONNX)


def test_a_process_without_weights_exports_the_head_alone(runs, store, data_set):
    Client(runs, data_set).run(TrainOrder(configuration(data_set, replace(RECIPES["mlp"], epochs=1))))
    exporter = Exporter(Registry(store), BaseStages(None))
    assert exporter.export(HeadRef("colors"), ExportFormat.ONNX)
    with pytest.raises(FailedPrecondition, match="--weights"):
        exporter.export(HeadRef("colors"), ExportFormat.ONNX, with_backbone=True)
