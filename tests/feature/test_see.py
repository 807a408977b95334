"""See: the strongest patches are those of brute force, and the call behaves like every other."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gramlet.errors import Cancelled, GramletError, InvalidInput, OtherWeights, Overloaded, Unavailable
from gramlet.feature.see_types import (
    Box,
    Maximization,
    Patch,
    PatchField,
    Projection,
    SeeFinished,
    SeeOptimized,
    SeePatches,
    SeePreview,
    SeeProgress,
    SeeQueued,
    SeeRefused,
    SeeStart,
    SeeStarted,
)
from gramlet.feature.types import Extraction, Features
from gramlet.types import Array, Resize, ResizeMode
from gramlet_server.backbone import load_network
from gramlet_server.feature.descents import DescentLimits
from gramlet_server.feature.engine import Engine, EngineSettings
from gramlet_server.feature.fields import Field, Fields
from gramlet_server.feature.maximization import Spectrum, maximize, transformed
from gramlet_server.feature.strongest import Look, Strongest
from gramlet_server.pictures.prepare import Decoded
from gramlet_server.process.memory_budget import PROCESS
from PIL import Image
from torch import Tensor

from tests.feature.gated_device import GatedDevice

START = SeeStart(stage="layer1", channels=(3, 200, 0), patches=4)
SMALL = Maximization(steps=6, size=48, preview_every=2)


def picture(seed: int, height: int = 40, width: int = 56) -> Array:
    return np.random.default_rng(seed).random((3, height, width), dtype=np.float32)


PICTURES = [picture(seed, 40 + 8 * (seed % 2)) for seed in range(11)]


def see(engine: Engine, start: SeeStart, pictures: list[Any] | None = None) -> list[Any]:
    given = PICTURES if pictures is None else pictures
    messages = [[(f"picture {number}", each)] for number, each in enumerate(given)]
    with engine.see(start) as seeing:
        return list(seeing.events(messages))


def of_kind(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if type(event) is kind]


def inner(positions: int, length: int, effective: int) -> list[int]:
    """The positions of layer1, whose centers lie at multiples of 4, that are not too close to the border."""
    return [each for each in range(positions) if effective // 4 <= 4 * each < length - effective // 4]


def test_the_patches_are_the_strongest_of_all_pictures(engine: Engine) -> None:
    events = see(engine, START)
    started = events[0]
    assert isinstance(started, SeeStarted)
    assert (started.channels, started.stride, started.receptive_field) == (256, 4, 35)
    assert 4 <= started.effective_field <= 35
    assert started.weights_digest == engine.network.digest
    found = list(engine.extract(PICTURES, Extraction((START.stage,))))
    activations = [each.activations[START.stage] for each in found if isinstance(each, Features)]
    patches = of_kind(events, SeePatches)
    assert [event.channel for event in patches] == [3, 200, 0]
    for event in patches:
        largest = []
        for each, whole in zip(activations, PICTURES, strict=True):
            _, height, width = whole.shape
            rows = inner(each.shape[1], height, started.effective_field)
            columns = inner(each.shape[2], width, started.effective_field)
            largest.append(float(each[event.channel][np.ix_(rows, columns)].max()))
        expected = sorted(range(len(PICTURES)), key=lambda index: -largest[index])[: START.patches]
        assert [patch.index for patch in event.patches] == [index for index in expected if largest[index] > 0]
        for patch in event.patches:
            assert patch.id == f"picture {patch.index}"
            assert patch.activation == pytest.approx(largest[patch.index], rel=1e-4)
            at = activations[patch.index][event.channel][patch.row, patch.column]
            assert at == pytest.approx(patch.activation, rel=1e-4)
    last = events[-1]
    assert isinstance(last, SeeFinished)
    assert (last.pictures, last.refused, last.weights_digest) == (11, 0, engine.network.digest)
    assert last.timing.compute_seconds > 0
    assert of_kind(events, SeeProgress)[-1].pictures == 11


@pytest.mark.parametrize("patch_field", list(PatchField))
def test_a_patch_shows_the_field_of_its_position(engine: Engine, patch_field: PatchField) -> None:
    started, *events = see(engine, replace(START, patch_field=patch_field))
    half = 17 if patch_field is PatchField.THEORETICAL else started.effective_field // 2
    patch = of_kind(events, SeePatches)[0].patches[0]
    rows, columns = (range(max(0, 4 * at - half), 4 * at + half + 1) for at in (patch.row, patch.column))
    height, width = PICTURES[patch.index].shape[1:]
    assert (patch.height, patch.width) == (height, width)
    assert patch.box == Box(
        columns.start, rows.start, min(width, columns.stop) - columns.start, min(height, rows.stop) - rows.start
    )
    shown = np.asarray(patch.image, np.float32) / 255
    expected = PICTURES[patch.index][:, rows.start : rows.stop, columns.start : columns.stop].transpose(1, 2, 0)
    assert shown.shape == expected.shape
    assert np.corrcoef(shown.mean(2).ravel(), expected.mean(2).ravel())[0, 1] > 0.8  # noise, as a JPEG


def test_the_effective_field_holds_what_a_position_sees(engine: Engine) -> None:
    """Noise outside of it changes the activations far less than noise inside of it."""
    fields = Fields(engine.passes)
    with engine.passes.scheduler.caller() as caller:
        field = fields.of(caller, "layer2")
    assert 20 <= field.effective < len(field.seen) == 91
    box = field.effective_box(6, 6, 96, 96)
    assert (box.width, box.height) == (field.effective, field.effective)
    inside = np.zeros((96, 96), bool)
    inside[box.top : box.top + box.height, box.left : box.left + box.width] = True
    whole, other = picture(1, 96, 96), picture(2, 96, 96)
    pictures = [whole, np.where(inside, whole, other), np.where(inside, other, whole)]
    found = [each.activations["layer2"][:, 6, 6] for each in engine.extract(pictures, Extraction(("layer2",)))]  # type: ignore[union-attr]
    outside_changed, inside_changed = (float(np.linalg.norm(each - found[0])) for each in found[1:])
    assert 0 < outside_changed < 0.5 * inside_changed


def test_positions_that_see_mostly_padding_are_left_out_where_there_are_others() -> None:
    field = Field(4, range(-17, 18), 13)
    assert field.inner(10, 40) == slice(1, 10)  # centers 4 to 36 of 0 to 36: 3 pixels from the border
    assert Field(32, range(-213, 214), 201).inner(2, 64) == slice(0, 2)
    assert Field(0, range(0), 0).inner(1, 64) == slice(0, 1)


def test_a_projection_has_the_shape_of_its_patch_and_ends_where_the_field_ends(engine: Engine) -> None:
    start = replace(START, channels=(200,), projection=Projection.GUIDED, patches=2)
    (event,) = of_kind(see(engine, start), SeePatches)
    for patch in event.patches:
        projection = patch.projection_image
        assert projection is not None
        assert projection.size == patch.image.size == (patch.box.width, patch.box.height)
        assert np.asarray(projection).std() > 5


def test_a_contact_sheet_has_every_channel_and_small_patches(engine: Engine) -> None:
    start = SeeStart(stage="layer3", patches=1, resize=Resize(ResizeMode.LONGEST_SIDE, 96))
    patches = of_kind(see(engine, start, PICTURES[:3]), SeePatches)
    assert [event.channel for event in patches] == list(range(1024))
    assert {max(patch.image.size) for event in patches[:50] for patch in event.patches} == {64}


def test_a_bad_picture_fails_alone(engine: Engine) -> None:
    given = [PICTURES[0], b"no picture", InvalidInput("cut"), PICTURES[1], picture(1, 2000, 2000)]
    events = see(engine, START, given)
    refused = of_kind(events, SeeRefused)
    assert [(event.index, event.id) for event in refused] == [(1, "picture 1"), (2, "picture 2"), (4, "picture 4")]
    assert "at most 1,048,576" in refused[2].error.message
    assert {patch.index for event in of_kind(events, SeePatches) for patch in event.patches} <= {0, 3}
    assert (events[-1].pictures, events[-1].refused) == (5, 3)


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (replace(START, stage="layer9"), "start.stage"),
        (replace(START, channels=(3, 256)), "start.channels[1]"),
        (replace(START, channels=(), projection=Projection.GUIDED), "start.channels"),
        (replace(START, channels=(), maximization=SMALL), "start.channels"),
    ],
)
def test_a_wrong_start_names_its_field(engine: Engine, start: SeeStart, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        engine.see(start)
    assert error.value.field == field


def test_a_channel_out_of_range_is_answered_with_the_number_of_channels(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="layer1 has 256 channels, 0 to 255: there is no 700"):
        engine.see(replace(START, channels=(700,)))


def test_no_pictures_is_an_error(engine: Engine) -> None:
    with pytest.raises(InvalidInput) as error:
        see(engine, START, [])
    assert error.value.field == "items"


def test_other_weights_are_refused(engine: Engine) -> None:
    with pytest.raises(OtherWeights):
        engine.see(replace(START, weights_digest="0" * 64))


def test_memory_for_the_patches_is_reserved_before_any_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROCESS, "_limit", 100_000)
    with pytest.raises(InvalidInput) as error:
        see(engine, START)
    assert error.value.field == "start.patches"


def test_an_optimized_picture_is_reported_while_it_forms_and_is_the_same_again(engine: Engine) -> None:
    start = SeeStart(stage="layer2", channels=(5,), patches=0, maximization=SMALL)
    events = see(engine, start, [])
    assert [(event.step, event.steps) for event in of_kind(events, SeePreview)] == [(2, 6), (4, 6)]
    (optimized,) = of_kind(events, SeeOptimized)
    assert optimized.image.size == (48, 48)
    shown = np.asarray(optimized.image, np.float32).transpose(2, 0, 1) / 255
    (found,) = engine.extract([shown], Extraction(("layer2",)))
    assert isinstance(found, Features)
    assert found.activations["layer2"][5].mean() == pytest.approx(optimized.activation, rel=0.05)
    (again,) = of_kind(see(engine, start, []), SeeOptimized)
    assert again.png == optimized.png


def test_steps_increase_the_activation() -> None:
    weights = torch.randn(3, generator=torch.Generator().manual_seed(0)).view(1, 3, 1, 1)

    def activate(picture: Tensor) -> Tensor:
        return (picture * weights).mean()

    steps = list(maximize(activate, activate, SMALL, torch.device("cpu"), lambda work: work()))
    assert [each.step for each in steps] == [1, 2, 3, 4, 5, 6]
    assert float(steps[-1].activation) > float(steps[0].activation)
    last = steps[-1].picture
    assert last is not None
    assert float((last * weights[0]).mean()) == pytest.approx(float(steps[-1].activation), rel=1e-5)


def test_a_channel_that_is_zero_is_awakened() -> None:
    def activate(picture: Tensor) -> Tensor:
        return torch.relu(picture.mean() - 0.52)

    def awaken(picture: Tensor) -> Tensor:
        return picture.mean()

    settings = Maximization(steps=40, size=48)
    dead = list(maximize(activate, activate, settings, torch.device("cpu"), lambda work: work()))
    assert float(dead[-1].activation) == 0
    awake = list(maximize(activate, awaken, settings, torch.device("cpu"), lambda work: work()))
    assert float(awake[-1].activation) > 0.1


def test_the_motion_of_a_picture_is_bounded_and_none_is_none() -> None:
    spectrum = Spectrum(48, torch.device("cpu"))
    shown = spectrum.picture(100 * spectrum.start(torch.Generator().manual_seed(1)))
    assert 0 <= float(shown.min()) < 0.4 < 0.6 < float(shown.max()) <= 1
    torch.testing.assert_close(transformed(shown, (0, 0, 0, 0)), shown, rtol=1e-4, atol=1e-4)
    moved = transformed(shown, (1, -1, 1, -1))
    assert moved.shape == shown.shape
    assert float((moved - shown).abs().mean()) > 0.01


def test_of_equal_activations_the_earlier_picture_stays() -> None:
    strongest = Strongest([0, 1], 2, Field(4, range(-17, 18), 13).whole_box, 32, keeps_pictures=False)
    pixels = np.zeros((40, 40, 3), np.uint8)
    values = [(1.0, 0.0), (1.0, -1.0), (2.0, 0.5), (1.0, 0.5)]
    for index, value in enumerate(values):
        decoded = Decoded(pixels, 40, 40, (0, 0, 40, 40))
        positions = np.array([11, 0], np.int64)
        strongest.add(Look(index, str(index), decoded, np.array(value, np.float32), positions, 10))
    assert [each.index for each in strongest.of(0)] == [2, 0]
    assert [each.index for each in strongest.of(1)] == [2, 3]  # what is not above 0 is no response
    assert [(each.row, each.column) for each in strongest.of(0)] == [(1, 1), (1, 1)]


# --- the device, the queue, and the end of a call ---


@pytest.fixture
def gated() -> Iterator[tuple[Engine, GatedDevice]]:
    device = GatedDevice()
    settings = EngineSettings(descents=DescentLimits(1, 1))
    engine = Engine(load_network("resnet50", "random:0", "cpu"), settings, device=device)
    yield engine, device
    engine.close()


def test_a_cancelled_call_ends_and_leaves_nothing(gated: tuple[Engine, GatedDevice]) -> None:
    engine, device = gated
    with device.shut(), engine.see(START) as seeing:
        outcomes: list[GramletError] = []

        def read() -> None:
            with pytest.raises(Cancelled) as error:
                list(seeing.events([[(str(number), each)] for number, each in enumerate(PICTURES)]))
            outcomes.append(error.value)

        reader = threading.Thread(target=read)
        reader.start()
        seeing.cancel()
        device._gate.set()
        reader.join(30)
        assert len(outcomes) == 1
    assert engine.passes.scheduler.callers == 0
    assert engine.passes.scheduler.queued == 0


def test_an_optimization_is_cancelled_within_a_step(engine: Engine) -> None:
    endless = SeeStart(
        stage="layer2", channels=(5,), patches=0, maximization=Maximization(steps=4096, size=48, preview_every=1)
    )
    with engine.see(endless) as seeing:
        events = seeing.events([])
        while not isinstance(next(events), SeePreview):
            pass
        assert engine.backlog_seconds > 0
        seeing.cancel()
        with pytest.raises(Cancelled):
            list(events)
    assert engine.descents.queue.running == 0
    assert engine.backlog_seconds == 0


def test_calls_that_optimize_wait_among_the_descents(gated: tuple[Engine, GatedDevice]) -> None:
    engine, _ = gated
    order = SeeStart(stage="conv1", channels=(5,), patches=0, maximization=SMALL)
    first, second = engine.see(order), engine.see(order)
    with pytest.raises(Overloaded):
        engine.see(order)
    assert engine.passes.scheduler.callers == 2
    with second:
        waiting = second.events([])
        assert next(waiting) == SeeQueued(position=0)
        assert first.keeps_others_waiting
        with first:
            pass
        assert isinstance(list(waiting)[-1], SeeFinished)


def test_a_drain_sends_an_optimization_elsewhere(gated: tuple[Engine, GatedDevice]) -> None:
    engine, _ = gated
    with engine.see(SeeStart(stage="conv1", channels=(5,), patches=0, maximization=SMALL)) as seeing:
        events = seeing.events([])
        assert isinstance(next(events), SeeStarted)
        engine.drain()
        with pytest.raises(Unavailable):
            list(events)


def test_a_patch_is_decoded_when_it_is_looked_at() -> None:
    file = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(file, "JPEG")
    patch = Patch(
        index=0, id="a", activation=1.0, row=0, column=0, box=Box(0, 0, 7, 5), height=5, width=7, jpeg=file.getvalue()
    )
    assert patch.image.size == (7, 5)
    assert patch.projection_image is None
