"""Where a head sees its class in a picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gramlet_server.train.classifier import Classifier


def heat_map(classifier: Classifier, activations: NDArray[np.float32], target: int) -> NDArray[np.float32]:
    """(H, W) evidence for a class at each position, in logits: positive for the class, negative for the others.

    The gradient of the logit of the class, less the mean of all logits, with respect to the pooled embedding weighs the
    channels of the last stage (Grad-CAM, Selvaraju et al., ICCV 2017, before its ReLU). The map of a linear head is
    exact (CAM, Zhou et al., CVPR 2016): its mean is that difference of logits, but for the bias.

    Args:
        classifier: The head, with its unfrozen stages.
        activations: (C, H, W), the input of the unfrozen stages, or of the pooling where the network is frozen.
        target: Position of the class.
    """
    maps = torch.tensor(activations)[None]
    if classifier.late is not None:
        with torch.no_grad():
            maps = _without_pooling(classifier.late)(maps)
    embedding = maps.mean(dim=(2, 3)).requires_grad_(True)
    with torch.enable_grad():
        logits = classifier.head(embedding)[0] / classifier.temperature
        (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), embedding)
    result: NDArray[np.float32] = (gradient[0, :, None, None] * maps[0]).sum(dim=0).numpy()
    return result


def _without_pooling(late: nn.Module) -> nn.Sequential:
    return nn.Sequential(*list(late.children())[:-1])
