"""What the store keeps of an order: its pictures as they were sent, and what else the run needs.

Pictures are stored as they were sent because files take a hundredth of the space of their pixels. A run that waits
keeps nothing else in memory, and prepares its pictures from the store when its turn comes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gramlet.errors import NotFound
from gramlet.feature.types import Style
from gramlet.json_codec import from_json, to_json
from gramlet.stylize.types import Stylization, StylizeSettings
from gramlet.types import Picture

from gramlet_server.runs.run import Run


@dataclass(frozen=True)
class KeptOrder:
    """An order beside its pictures. Ratios and deepest stages are a sweep's.

    The way to report is kept for a detached run, which another replica may take over without a caller.
    """

    settings: StylizeSettings
    weights_digest: str
    ratios: tuple[float, ...] = ()
    deepest_stages: tuple[str, ...] = ()
    keep_inputs: bool = False
    state_seconds: float | None = None


def put_order(run: Run, stylization: Stylization, kept: KeptOrder) -> None:
    """Stores an order. What `get_order` returns is written last: a run that has it has its pictures."""
    run.put("pictures", pictures_to_bytes(stylization))
    run.put("order", to_json(kept))


def get_order(run: Run, field: str) -> KeptOrder:
    """The order beside its pictures.

    Raises:
        NotFound: The process that made the run was lost before it was stored.
        DataLoss: It is damaged.
    """
    try:
        with run.intact("order"):
            return from_json(KeptOrder, run.get("order"))
    except NotFound:
        raise NotFound(
            f"run {run.run_id} ended before its pictures were stored: send the stylization again", field=field
        ) from None


def get_stylization(run: Run, settings: StylizeSettings) -> Stylization:
    """The pictures of an order, with settings.

    Raises:
        DataLoss: They are damaged.
    """
    with run.intact("pictures"):
        return pictures_from_bytes(run.get("pictures"), settings)


def pictures_to_bytes(stylization: Stylization) -> bytes:
    """The pictures as an npz file. Those that came as files are arrays of bytes, with one axis."""
    arrays = {name: _array(picture) for name, picture in _named(stylization) if picture is not None}
    arrays["weights"] = np.array([style.weight for style in stylization.styles], np.float64)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes `allow_pickle` for one of the arrays
    return file.getvalue()


def pictures_from_bytes(data: bytes, settings: StylizeSettings) -> Stylization:
    """The pictures that `pictures_to_bytes` wrote, with settings."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        found = {name: _picture(file[name]) for name in file.files if name != "weights"}
        weights = file["weights"].tolist()
    styles = tuple(
        Style(found[f"style{i}"], weight, found.get(f"content_region{i}"), found.get(f"style_region{i}"))
        for i, weight in enumerate(weights)
    )
    return Stylization(found["content"], styles, settings, found.get("initial"), found.get("previous_content"))


def _named(stylization: Stylization) -> Iterator[tuple[str, Picture | None]]:
    yield "content", stylization.content
    yield "initial", stylization.initial
    yield "previous_content", stylization.previous_content
    for index, style in enumerate(stylization.styles):
        yield f"style{index}", style.picture
        yield f"content_region{index}", style.content_region
        yield f"style_region{index}", style.style_region


def _array(picture: Picture) -> np.ndarray:
    return np.frombuffer(picture, np.uint8) if isinstance(picture, bytes) else picture


def _picture(array: np.ndarray) -> Picture:
    return array.tobytes() if array.ndim == 1 else array
