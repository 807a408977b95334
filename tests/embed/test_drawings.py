from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from gramlet.embed.drawings import DrawingForm, MapDrawing
from gramlet.embed.settings import Exactness, MapSettings, Tsne
from gramlet.embed.types import Layout, Measured, Place, Quality, StyleMap
from gramlet.errors import InvalidInput
from gramlet_server.embed import plot, thumbnails
from gramlet_server.embed.drawing import draw
from gramlet_server.embed.page import page
from gramlet_server.embed.stored import Frame
from gramlet_server.runs.store import Store
from PIL import Image

from tests.embed.conftest import MakeMap, vector_items

MEASURED = Measured(Exactness.EXACT, 9, 1e-7, 1e-7, 10, 0)


def a_map(items: int = 30, dimensions: int = 2, layouts: int = 1, labels: tuple[str, ...] = ("a", "b")) -> StyleMap:
    random = np.random.default_rng(0)
    return StyleMap(
        map_id="a-map",
        created=0.0,
        settings=MapSettings(dimensions=dimensions, stages=("layer1",)),
        places=tuple(Place(f"{n}.png", labels[n % len(labels)]) for n in range(items)),
        layouts=tuple(
            Layout(random.normal(0, 5, (items, dimensions)).astype(np.float32), Quality(5, 0.9, 0.9, 0.5), 5.0 + n, 0.5)
            for n in range(layouts)
        ),
        measured=MEASURED,
    )


def some_jpegs(items: int) -> list[bytes | None]:
    random = np.random.default_rng(0)
    return [thumbnails.encode(random.random((3, 20 + n % 9, 24)).astype(np.float32), 24) for n in range(items)]


def image_of(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_spread_leaves_hardly_any_overlap_and_does_not_move_free_items() -> None:
    random = np.random.default_rng(0)
    points = np.vstack([random.normal(500, 60, (100, 2)), [[60.0, 60.0], [940.0, 940.0]]])
    moved = plot.spread(points, 50, 1000, 1000)
    distance = np.abs(moved[:, None] - moved[None]).max(axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance < 45).sum() <= 4
    assert moved.min() >= 25
    assert moved.max() <= 975
    np.testing.assert_allclose(moved[-2:], points[-2:], atol=0.5)


def test_items_at_one_point_are_all_visible() -> None:
    moved = plot.spread(np.full((9, 2), 300.0), 40, 600, 600)
    distance = np.abs(moved[:, None] - moved[None]).max(axis=2)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 35


def test_the_grid_gives_every_item_a_cell_at_the_least_possible_distance() -> None:
    points = np.random.default_rng(3).random((6, 2))
    cells, columns, rows = plot.assign_cells(points, 1.5)
    assert (columns, rows) == (3, 2)
    assert len({tuple(cell) for cell in cells.tolist()}) == 6
    unit = (points - points.min(axis=0)) / np.ptp(points, axis=0) * [columns - 1, rows - 1]
    every = np.array([(c, r) for r in range(rows) for c in range(columns)], float)
    least = min(((unit - every[list(order)]) ** 2).sum() for order in itertools.permutations(range(6)))
    assert ((unit - cells) ** 2).sum() == pytest.approx(least)


def test_large_grids_are_assigned_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "_ASSIGNED_AT_ONCE", 50)
    points = np.random.default_rng(3).random((400, 2))
    cells, columns, rows = plot.assign_cells(points, 1.0)
    assert len({tuple(cell) for cell in cells.tolist()}) == 400
    unit = (points - points.min(axis=0)) / np.ptp(points, axis=0) * [columns - 1, rows - 1]
    assert np.abs(unit - cells).mean() < 1.5


@pytest.mark.parametrize("draw_png", [plot.scatter, plot.grid])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_drawings_have_the_width_asked_for(draw_png, dimensions: int) -> None:  # type: ignore[no-untyped-def]
    style_map = a_map(dimensions=dimensions, layouts=2)
    one = image_of(draw_png(style_map, some_jpegs(30), 0, 500, "Title"))
    row = image_of(draw_png(style_map, some_jpegs(30), None, 500, ""))
    assert 500 <= one.width < 600
    assert 1000 <= row.width < 1150
    assert len(one.convert("RGB").getcolors(1 << 24) or []) > 200


def test_frames_have_the_colors_of_labels() -> None:
    png = image_of(plot.scatter(a_map(), some_jpegs(30), 0, 500, "")).convert("RGB")
    seen = {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in png.getcolors(1 << 24) or []}  # type: ignore[misc]
    assert set(plot.label_colors(["a", "b"]).values()) <= seen


@pytest.mark.parametrize("items", [1, 2, 900])
def test_few_and_many_items_without_and_with_pictures(items: int) -> None:
    jpegs = [jpeg if number % 2 else None for number, jpeg in enumerate(some_jpegs(items))]
    assert image_of(plot.scatter(a_map(items), jpegs, 0, 400, "")).height > 100
    assert image_of(plot.grid(a_map(items), [None] * items, 0, 400, "")).height > 20


def test_labels_are_drawn_literally() -> None:
    """Matplotlib would read text between dollar signs as mathematics, and fail if it is not."""
    style_map = a_map(labels=("$\\frac{", "x" * 60, ""))
    assert image_of(plot.scatter(style_map, some_jpegs(30), 0, 400, "$\\oops{")).width > 300


def test_the_legend_has_every_name_or_says_how_many_are_missing() -> None:
    names = [f"a rather long name of style {number}" for number in range(60)]
    legend = plot.lay_out_legend(names, 1600)
    assert [name for _, _, name, _ in legend.entries] == names
    assert [shown for *_, shown in legend.entries] == names
    assert legend.missing == ""
    assert legend.rows > 5
    crowded = plot.lay_out_legend([f"style {number}" for number in range(2000)], 800)
    assert crowded.missing == f"and {2000 - len(crowded.entries):,} more labels"
    (entry,) = plot.lay_out_legend(["x" * 500], 400).entries
    assert entry[3].endswith("x…")


def test_a_drawing_is_higher_by_the_rows_of_its_legend() -> None:
    names = tuple(f"name {number}" for number in range(30))
    few, many = (
        image_of(plot.scatter(a_map(labels=labels), some_jpegs(30), 0, 400, "")) for labels in (names[:2], names)
    )
    assert many.height - few.height > 100


def test_thumbnails_survive_packing() -> None:
    jpegs = [*some_jpegs(3), None, *some_jpegs(1)]
    assert thumbnails.unpack(thumbnails.pack(jpegs)) == jpegs


def test_sheets_hold_each_picture_in_its_cell() -> None:
    colors = np.random.default_rng(0).random((7, 3))
    jpegs = [
        thumbnails.encode(np.broadcast_to(color[:, None, None], (3, 16, 24)).astype(np.float32), 24) for color in colors
    ]
    sheets = thumbnails.paste(jpegs)
    sheet = np.asarray(image_of(sheets.jpegs[0])) / 255
    for number, color in enumerate(colors):
        x, y = number % sheets.columns * sheets.cell, number // sheets.columns * sheets.cell
        np.testing.assert_allclose(sheet[y + 8, x + 12], color, atol=0.03)
    assert sheets.sizes == ((24, 16),) * 7


def test_the_page_sends_no_request_and_escapes_every_name() -> None:
    style_map = a_map(3, labels=("</script><script>alert(1)</script>",))
    style_map = replace(style_map, places=(Place("<img src=x onerror=alert(1)>", "a"), *style_map.places[1:]))
    frames = [(Frame(10, 1.0, style_map.layouts[0].coordinates),)]
    text = page(style_map, some_jpegs(3), frames, "<b>Title & more</b>").decode()
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href|url|import)\s*[=(]\s*["']?(?:https?:)?//""", text)
    assert "<title>&lt;b&gt;Title &amp; more" in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 2


def test_drawings_of_stored_maps(make_map: MakeMap, store: Store) -> None:
    settings = MapSettings(tsne=Tsne(perplexities=(3.0, 5.0), iterations=30))
    items = vector_items(16)
    make_map(items, replace(settings, descriptor=settings.descriptor.VECTOR), map_id="m")
    png = draw(store, MapDrawing("m", DrawingForm.SCATTER, width=300))
    assert (png.content_type, png.data[:4]) == ("image/png", b"\x89PNG")
    html = draw(store, MapDrawing("m", DrawingForm.PAGE))
    assert html.content_type == "text/html"
    for wrong, field in ((MapDrawing("m", layout=2), "layout"), (MapDrawing("m", width=10), "width")):
        with pytest.raises(InvalidInput) as error:
            draw(store, wrong)
        assert error.value.field == field
