"""Pictures unlike the training pictures are flagged, and a heat map adds up to what the head says."""

import numpy as np
import pytest
import torch
from gramlet.train.configuration import HeadKind
from gramlet_server.train.classifier import Classifier, build_head
from gramlet_server.train.heatmap import heat_map
from gramlet_server.train.typicality import typicality, typicality_reference
from torch import nn


def features(count: int, seed: int, center: float = 1.0) -> np.ndarray:
    return (center + np.random.default_rng(seed).standard_normal((count, 32))).astype(np.float32)


def test_5_percent_of_pictures_of_the_same_kind_have_a_p_value_of_5_percent():
    alarms = []
    for seed in range(20):
        points = features(400, seed)
        kept = typicality_reference(points, np.arange(200), seed)
        alarms.append((typicality(kept, points[200:]) <= 0.05).mean())
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.015)


def test_pictures_of_another_kind_are_flagged():
    kept = typicality_reference(features(200, 0), np.arange(200), 0)
    assert (typicality(kept, features(100, 1, center=-1.0)) <= 0.05).all()


def test_activations_are_pooled_first_and_a_large_set_keeps_a_part(monkeypatch):
    monkeypatch.setattr("gramlet_server.train.typicality.REFERENCE", 50)
    points = features(200, 0)
    kept = typicality_reference(points[:, :, None, None].repeat(2, axis=2), np.arange(200), 0)
    assert kept["reference"].shape == (50, 32)
    again = typicality(kept, points[:, :, None, None].repeat(3, axis=3))
    assert np.allclose(again, typicality(kept, points))


def test_the_heat_map_of_a_linear_head_adds_up_to_the_logit_over_the_others_without_the_bias():
    head = build_head(HeadKind.LINEAR, 8, 3, seed=0)
    maps = np.random.default_rng(0).standard_normal((8, 4, 5)).astype(np.float32)
    found = heat_map(Classifier(None, head, 2.0), maps, target=1)
    weight = head.output.weight.numpy() / 2.0
    expected = np.tensordot(weight[1] - weight.mean(axis=0), maps, axes=1)
    assert np.allclose(found, expected, atol=1e-5)
    logits = (torch.from_numpy(maps.mean(axis=(1, 2))) @ torch.from_numpy(weight).T).numpy()
    assert found.mean() == pytest.approx(logits[1] - logits.mean(), abs=1e-5)


def test_the_heat_map_of_unfrozen_stages_is_of_their_last_activations():
    torch.manual_seed(0)
    late = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1))
    classifier = Classifier(late, build_head(HeadKind.MLP, 8, 3, seed=0), 1.0)
    maps = np.random.default_rng(0).standard_normal((4, 6, 6)).astype(np.float32)
    with torch.no_grad():
        inner = late[0](torch.from_numpy(maps)[None])[0].numpy()
    found = heat_map(classifier, maps, target=2)
    assert found.shape == (3, 3)
    assert np.allclose(found, heat_map(Classifier(None, classifier.head, 1.0), inner, target=2), atol=1e-6)
