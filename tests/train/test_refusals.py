"""What is wrong with an order or its pictures: refused, left out, or named in the report."""

from dataclasses import replace

import numpy as np
import pytest
from gramlet.errors import (
    AlreadyExists,
    GramletError,
    InvalidInput,
    NotFound,
    PermissionDenied,
)
from gramlet.train.configuration import TrainOrder, Unreadable
from gramlet.train.types import Skipped
from gramlet_server.train.runs import Runs, RunSettings

from .conftest import PROBE, Client, DataSet, configuration, make_files


def test_what_is_wrong_with_the_data_is_said_before_any_work(runs, store, data_set):
    broken = [
        configuration(DataSet(make_files(labels=("red",)))),
        replace(configuration(data_set), entries=data_set.entries + data_set.entries[:1]),
        configuration(data_set, name="no/name"),
        replace(configuration(data_set), dataset="/etc", entries=()),
    ]
    for order in broken:
        with pytest.raises(GramletError):
            runs.start(TrainOrder(order), ())
    assert not store.list("runs")


def test_a_run_id_is_used_once_and_an_unknown_one_is_not_found(runs, data_set):
    order = TrainOrder(configuration(data_set, PROBE), run_id="mine")
    Client(runs, data_set).run(order)
    with pytest.raises(AlreadyExists):
        runs.start(order, ())
    with pytest.raises(NotFound):
        runs.start(TrainOrder(resume_run_id="other"), ())


def test_unreadable_pictures_are_skipped_by_name_or_fail_the_run(runs):
    files = make_files()
    files["train/red/torn.png"] = files["train/red/0.png"][:200]
    files["val/red/empty.png"] = b""
    data = DataSet(files)
    client = Client(runs, data)
    result = client.run(TrainOrder(configuration(data, PROBE)))
    names = {"train/red/torn.png", "val/red/empty.png"}
    assert {event.name for event in client.events if isinstance(event, Skipped)} == names
    assert {item.name for item in result.head.findings.skipped} == names
    assert result.head.outcome.report("val").pictures == 8
    with pytest.raises(InvalidInput, match=r"torn\.png|empty\.png"):
        Client(runs, data).run(TrainOrder(configuration(data, PROBE, unreadable=Unreadable.FAIL)))


def test_copies_of_an_unreadable_picture_are_skipped_with_it(runs):
    files = make_files()
    files["train/red/torn.png"] = files["train/green/torn.png"] = b"torn"
    data = DataSet(files)
    result = Client(runs, data).run(TrainOrder(configuration(data, PROBE)))
    assert {item.name for item in result.head.findings.skipped} == {"train/red/torn.png", "train/green/torn.png"}


def test_a_class_without_a_readable_picture_fails_the_run(runs):
    files = {name: (b"torn" if name.startswith("train/red") else data) for name, data in make_files().items()}
    data = DataSet(files)
    with pytest.raises(InvalidInput, match="'red' has no training picture left: train/red/0"):
        Client(runs, data).run(TrainOrder(configuration(data, PROBE)))


def test_pictures_that_were_not_asked_for_or_are_missing_or_swapped_fail_the_run(runs, data_set):
    class Swapped(DataSet):
        def uploads(self, wanted):
            uploads = super().uploads(wanted)
            return [replace(uploads[0], picture=uploads[1].picture), *uploads[1:]]

    class Twice(DataSet):
        def uploads(self, wanted):
            return [super().uploads(wanted)[0]] * 2

    class Few(DataSet):
        def uploads(self, wanted):
            return super().uploads(wanted)[:-1]

    for kind, message in [(Swapped, "another SHA-256"), (Twice, "not asked for"), (Few, "not sent")]:
        data = kind(data_set.files)
        with pytest.raises(InvalidInput, match=message):
            Client(runs, data).run(TrainOrder(configuration(data, PROBE)))


# --- data sets that the server reads ---


def test_a_folder_below_an_allowed_root_is_read_by_the_server(engine, store, base, tmp_path):
    root = tmp_path / "data"
    for name, content in make_files().items():
        (root / "colors" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "colors" / name).write_bytes(content)
    runs = Runs(engine, store, base, RunSettings(dataset_roots=(str(root),)))
    order = replace(configuration(DataSet({}), PROBE), dataset=str(root / "colors"))
    client = Client(runs, DataSet({}))
    assert client.run(TrainOrder(order)).head.accuracy == 1.0
    assert client.wanted == ()

    (root / "escape").symlink_to("/etc")
    for outside in (str(tmp_path), str(root / "escape"), f"{root}/../", "/etc", "s3://bucket/x"):
        with pytest.raises(PermissionDenied):
            runs.start(TrainOrder(replace(order, dataset=outside)), ())
    with pytest.raises(NotFound):
        runs.start(TrainOrder(replace(order, dataset=str(root / "nothing"))), ())


# --- a messy data set ---


def test_a_messy_data_set_gets_a_sensible_report(runs):
    """10 classes, 1 000 small pictures: one mislabelled, one truncated, one twice."""
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    hues = [tuple(int(127 + 100 * np.cos(2 * np.pi * (k / 10 + c / 3))) for c in range(3)) for k in range(10)]

    def draw(hue: int) -> bytes:
        pixels = np.array(hues[hue]) + rng.normal(0, 10, (32, 32, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    files = {f"{'val' if i >= 80 else 'train'}/hue{k}/{i}.png": draw(k) for k in range(10) for i in range(100)}
    files["train/hue3/0.png"] = draw(7)
    files["train/hue4/1.png"] = files["train/hue4/1.png"][:-40]
    files["val/hue5/99.png"] = files["train/hue5/2.png"]
    data = DataSet(files)
    result = Client(runs, data).run(TrainOrder(replace(configuration(data, replace(PROBE, epochs=20)), size=32)))
    findings = result.head.findings
    assert [item.name for item in findings.skipped] == ["train/hue4/1.png"]
    assert [(item.name, item.first) for item in findings.duplicates] == [("val/hue5/99.png", "train/hue5/2.png")]
    assert ("train/hue3/0.png", "hue7") in {(item.name, item.suggestion) for item in findings.suspects}
    assert len(findings.suspects) < 5
    report = result.head.outcome.report("val")
    assert report.pictures == 199
    assert report.accuracy > 0.9
    assert report.top[5] == 1.0
    assert len(report.confusion) == 10
    assert sum(map(sum, report.confusion)) == 199
