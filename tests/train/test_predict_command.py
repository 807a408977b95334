"""`gramlet predict`: what it says of many pictures together."""

from __future__ import annotations

from pathlib import Path

import pytest
from gramlet.cli import __main__ as cli
from PIL import Image

from tests.train.conftest import picture


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of each of two colors, and twelve nearly white ones."""
    root = tmp_path_factory.mktemp("pictures")
    for number, label in enumerate(("red", "green")):
        (root / "own" / label).mkdir(parents=True)
        for i in range(12):
            (root / "own" / label / f"{i}.png").write_bytes(picture(label, 100 * number + i))
    (root / "white").mkdir()
    for i in range(12):
        Image.new("RGB", (64, 64), (255 - i, 255, 255)).save(root / "white" / f"{i}.png")
    return root


def test_pictures_of_another_source_are_reported_together_and_own_ones_are_not(
    address: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAMLET_SERVER", address)

    def gramlet(*arguments: object) -> str:
        code = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    gramlet("train", pictures / "own", "--name", "together", "--kind", "logistic", "--size", 64)
    assert "together unlike the training pictures: 12 of 12" in gramlet("predict", "together", pictures / "white")
    assert "together unlike" not in gramlet("predict", "together", pictures / "own")
    assert "together unlike" not in gramlet("predict", "together", pictures / "white" / "0.png")
