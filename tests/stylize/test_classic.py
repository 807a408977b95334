"""Preset `classic` is the formulas of DESIGN section 5, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gramlet.feature.types import PictureStyle
from gramlet.stylize.types import Iteration, Stylization, StylizeSettings
from gramlet.types import Limits
from gramlet_server.backbone import load_network
from gramlet_server.feature.engine import Engine
from gramlet_server.stylize.optimise import stylize
from gramlet_server.stylize.prepare import prepare_job

from .direct import classic_loss, losses_of_lbfgs, torchvision_resnet50

ITERATIONS = 20


@pytest.mark.weights
def test_loss_and_gradient_and_the_whole_descent_are_those_of_a_direct_transcription(
    resnet50_weights: Path, samples: Path
) -> None:
    engine = Engine(load_network("resnet50", str(resnet50_weights), "cpu"))
    order = Stylization(
        (samples / "content/tubingen.jpg").read_bytes(),
        (PictureStyle((samples / "style/starry_night.jpg").read_bytes()),),
        StylizeSettings(preset="classic", size=256, iterations=ITERATIONS),
    )
    job = prepare_job(order, engine, Limits())
    assert job.styles[0].picture.shape == job.content.shape

    network = torchvision_resnet50(resnet50_weights)
    content, style = torch.tensor(job.content), torch.tensor(job.styles[0].picture)
    loss = classic_loss(network, content, style)

    elsewhere = content.flip(2).requires_grad_()
    expected = loss(elsewhere)
    expected.backward()
    with engine.differentiate(job.objective()) as differentiation:
        evaluation = differentiation.evaluate(elsewhere.detach().numpy())
    assert evaluation.loss == pytest.approx(expected.item(), rel=1e-4)
    assert elsewhere.grad is not None
    gradient = elsewhere.grad.numpy()
    assert np.abs(evaluation.gradient - gradient).max() < 1e-4 * np.abs(gradient).max()

    settings = job.settings
    direct = losses_of_lbfgs(loss, content, ITERATIONS, lr=settings.learning_rate, history_size=settings.history_size)
    ours = [event.loss for event in stylize(job, engine) if isinstance(event, Iteration)]
    assert len(ours) == ITERATIONS
    assert ours == pytest.approx(direct[:ITERATIONS], rel=0.01)
    engine.close()
