"""Plots of loss curves."""

import pytest
from gramlet.cli.plot import COLORS, Line, draw_panel, linear_ticks, logarithmic_ticks, tick_text
from PIL import ImageColor


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(100, [0, 20, 40, 60, 80, 100]), (7, [0, 2, 4, 6]), (0.35, [0, 0.1, 0.2, 0.3]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_ticks_are_round(most: float, ticks: list[float]) -> None:
    assert linear_ticks(most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(3.9, 5.2, [1e4, 2e4, 5e4, 1e5]), (0, 4, [1, 10, 100, 1e3, 1e4]), (0.02, 0.03, [])],
)
def test_ticks_of_a_logarithmic_axis_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert logarithmic_ticks(low, high) == pytest.approx(ticks)


def test_ticks_are_written_as_people_write_numbers() -> None:
    assert [tick_text(value) for value in (1e-5, 0.01, 0.5, 2, 500, 2e4, 1e12)] == [
        "1e-5",
        "0.01",
        "0.5",
        "2",
        "500",
        "2e4",
        "1e12",
    ]


def test_a_line_goes_from_the_left_to_the_right_of_the_frame_and_falls_with_its_values() -> None:
    image = draw_panel("loss", [Line(0, [0, 10], [1e6, 1e2])], "evaluations", (300, 200))
    red, green, blue = ImageColor.getrgb(COLORS[0])
    near = [
        (x, y)
        for x in range(image.width)
        for y in range(image.height)
        if max(abs(a - b) for a, b in zip(image.getpixel((x, y)), (red, green, blue), strict=True)) < 30  # type: ignore[arg-type]
    ]
    left, right = min(near), max(near)
    assert left[1] < 60
    assert right[1] > 120
    assert right[0] > 260
