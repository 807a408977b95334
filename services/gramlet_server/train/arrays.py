"""Names for the arrays of training and evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Logits, losses and scores."""
Labels = NDArray[np.int64]
"""Positions: of classes, of pictures, of folds."""
