"""Heat maps over pictures."""

import io

import numpy as np
from gramlet.cli.heat import SIDE, overlay
from PIL import Image


def test_evidence_for_a_class_is_red_and_against_it_blue_on_the_square_that_the_network_sees():
    picture = Image.new("RGB", (60, 40), (128, 128, 128))
    drawn = np.asarray(Image.open(io.BytesIO(overlay(picture, np.array([[1.0, 0.0, -1.0]], np.float32))))).astype(int)
    assert drawn.shape == (SIDE, SIDE, 3)
    left, middle, right = drawn[SIDE // 2, [5, SIDE // 2, -5]]
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50
    assert np.abs(middle - 128).max() < 10
