"""The one reader of picture folders: what is a picture, what its class and set are, what is left out and why."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from gramlet.embed.inputs import read_items
from gramlet.errors import InvalidInput, NotFound, PermissionDenied
from gramlet.folders import (
    PEEK_BYTES,
    Folder,
    ListedFile,
    Listing,
    arrange,
    for_training,
    natural_key,
    read_folder,
    read_pictures,
)
from gramlet.folders.rules import is_picture
from gramlet.train.inputs import read_labelled
from gramlet.types import Limits, Resize
from gramlet_server.pictures.prepare import prepare
from gramlet_server.train.datasets import Datasets
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def encoded(format_name: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(file, format=format_name)
    return file.getvalue()


def make(root: Path, *names: str, data: bytes | None = None) -> Path:
    """Files below a folder; names that end with a slash are folders."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded() if data is None else data)
    return root


def listing(*names: str, folders: tuple[str, ...] = ()) -> Listing:
    return Listing("here", [ListedFile(name, name) for name in names], lambda _: b"", folders)


def labelled(folder: Folder) -> list[tuple[str, str, str]]:
    return [(picture.name, picture.label, picture.set) for picture in folder.pictures]


def left_out(folder: Folder) -> dict[str, str]:
    return {item.name: item.reason for item in folder.left_out}


# --- what is a picture ---


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_picture_is_known_by_its_bytes_whatever_its_name(format_name: str, tmp_path: Path) -> None:
    data = encoded(format_name)
    make(tmp_path, "a/scan", "b/photo.jpeg_large", "b/x.txt", data=data)
    assert is_picture(data[:PEEK_BYTES])
    assert prepare(data, Resize(), Limits()).shape == (3, 4, 5)  # and the service reads it
    assert len(read_folder(tmp_path)) == 3


@pytest.mark.parametrize("order", ["little", "big"])
def test_tiff_of_either_byte_order_and_big_tiff_are_pictures(order: str) -> None:
    for version in (42, 43):
        number = version.to_bytes(2, "little" if order == "little" else "big")
        assert is_picture((b"II" if order == "little" else b"MM") + number + bytes(28))


@pytest.mark.parametrize(
    "data", [b"", b"BM is how this text begins, and it is none", b"RIFF1234WAVEfmt ", b"{}", b"GIF"]
)
def test_other_files_are_not_pictures(data: bytes, tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/1.png")
    make(tmp_path, "a/notes", data=data)
    folder = read_folder(tmp_path)
    assert [picture.name for picture in folder.pictures] == ["a/1.png", "b/1.png"]
    assert left_out(folder) == {"a/notes": "not a picture"}


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".TIFF", ".dib"])
def test_a_picture_is_known_by_its_suffix_without_a_look(suffix: str) -> None:
    assert len(arrange(listing(f"a/1{suffix}"))) == 1


# --- what is left out ---


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/.ipynb_checkpoints/1-checkpoint.jpg", "a/.ipynb_checkpoints"),
        ("__MACOSX/a/._1.jpg", "__MACOSX"),
        ("a/._1.jpg", "a/._1.jpg"),
        ("a/.DS_Store", "a/.DS_Store"),
        ("a/Thumbs.db", "a/Thumbs.db"),
        ("desktop.ini", "desktop.ini"),
        (".git/objects/1.jpg", ".git"),
    ],
)
def test_what_the_system_hides_takes_no_part(name: str, shown: str, tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg", name)
    for folder in (read_folder(tmp_path), arrange(listing("a/1.jpg", "b/1.jpg", name))):
        assert labelled(folder) == [("a/1.jpg", "a", ""), ("b/1.jpg", "b", "")]
        assert [(item.name, item.reason) for item in folder.left_out] == [(shown, "hidden")]


def test_empty_class_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg", "c/", "d/e/")
    make(tmp_path, "f/notes.txt", data=b"text")
    assert left_out(read_folder(tmp_path)) == {
        "c": "a folder without pictures",
        "d": "a folder without pictures",
        "f": "a folder without pictures",
        "f/notes.txt": "not a picture",
    }


def test_a_named_pipe_and_a_broken_link_are_left_out_and_nothing_waits_for_them(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    (tmp_path / "a/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert left_out(read_folder(tmp_path)) == {
        "a/gone.jpg": "a link to nothing",
        "a/pipe.jpg": "neither a file nor a folder",
    }


def test_remarks_name_each_reason_with_the_first_names() -> None:
    names = [f"a/{number}.txt" for number in range(7)]
    folder = arrange(listing("a/1.jpg", "a/.DS_Store", *names))
    assert folder.remarks() == [
        "left out of here: a/0.txt, a/1.txt, a/2.txt, a/3.txt, a/4.txt and 2 more: not a picture",
        "left out of here: a/.DS_Store: hidden",
    ]


# --- links ---


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "store/bees/1.jpg", "store/2.jpg", "data/ants/1.jpg")
    (tmp_path / "data/bees").symlink_to(tmp_path / "store/bees")
    (tmp_path / "data/ants/2.jpg").symlink_to(tmp_path / "store/2.jpg")
    expected = [("ants/1.jpg", "ants", ""), ("ants/2.jpg", "ants", ""), ("bees/1.jpg", "bees", "")]
    assert labelled(read_folder(tmp_path / "data")) == expected


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "b/self").symlink_to(tmp_path / "b")
    folder = read_folder(tmp_path)
    assert len(folder) == 2
    assert left_out(folder) == {
        "a/up": "a link back to a folder above it",
        "b/self": "a link back to a folder above it",
    }


def test_the_server_follows_links_within_its_roots_only(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a/1.jpg", "b/1.jpg", "shared/c/1.jpg").resolve()
    make(tmp_path, "secret/1.jpg")
    data = make(root / "data", "a/1.jpg", "b/1.jpg")
    (data / "c").symlink_to(root / "shared/c")
    (data / "d").symlink_to(tmp_path / "secret")
    (data / "a/2.jpg").symlink_to(tmp_path / "secret/1.jpg")
    datasets = Datasets([str(root)])
    entries = datasets.entries(str(data))
    assert [entry.name for entry in entries] == ["a/1.jpg", "b/1.jpg", "c/1.jpg"]
    assert [upload.picture for upload in datasets.read(str(data), entries, [2])] == [encoded()]
    # A file that has become a link since then is not read.
    (data / "a/1.jpg").unlink()
    (data / "a/1.jpg").symlink_to(tmp_path / "secret/1.jpg")
    with pytest.raises(InvalidInput, match="no longer has"):
        list(datasets.read(str(data), entries, [0]))
    with pytest.raises(PermissionDenied):
        datasets.entries(str(data / "d"))


def test_a_name_that_is_not_utf_8_is_shown_escaped_and_read(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9.jpg")).write_bytes(encoded())
    folder = read_folder(tmp_path)
    assert [picture.name for picture in folder.pictures] == ["a/1.jpg", r"a/caf\xe9.jpg", "b/1.jpg"]
    assert [Path(path).read_bytes() for path in folder] == [encoded()] * 3
    assert len(Datasets([str(tmp_path)]).entries(str(tmp_path))) == 2


def test_control_characters_in_names_are_shown_escaped_and_read(tmp_path: Path) -> None:
    make(tmp_path, "a\tb/1\n.jpg", "c/1.jpg")
    folder = read_folder(tmp_path)
    assert [(picture.name, picture.label) for picture in folder.pictures] == [
        (r"a\tb/1\n.jpg", r"a\tb"),
        ("c/1.jpg", "c"),
    ]
    assert [Path(path).read_bytes() for path in folder] == [encoded()] * 2


# --- layouts ---


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training"])
@pytest.mark.parametrize("validation", ["val", "valid", "Validation", "dev"])
@pytest.mark.parametrize("test", ["test", "Testing"])
def test_sets_are_known_by_their_usual_names(train: str, validation: str, test: str) -> None:
    folder = arrange(listing(f"{train}/a/1.jpg", f"{validation}/a/2.jpg", f"{test}/a/3.jpg", "sketches/a/4.jpg"))
    assert {(picture.label, picture.set) for picture in folder.pictures} == {
        ("a", "train"),
        ("a", "val"),
        ("a", "test"),
        ("a", "sketches"),
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.jpg", "2.jpg"], [("", ""), ("", "")]),
        (["a/1.jpg", "b/2.PNG", "stray.jpg"], [("a", ""), ("b", ""), ("", "")]),
        (["a/deep/1.jpg", "b/deep/er/1.jpg"], [("a", ""), ("b", "")]),
        (["train/a/1.jpg", "train/a/deep/2.jpg", "stray.jpg"], [("", ""), ("a", "train"), ("a", "train")]),
        (["test/1.jpg", "val/2.jpg"], [("", "test"), ("", "val")]),
        (["train/1.jpg", "train/a/2.jpg"], [("", "train"), ("a", "train")]),
    ],
)
def test_the_class_is_the_folder_below_the_set(names: list[str], expected: list[tuple[str, str]]) -> None:
    found = [(picture.label, picture.set) for picture in arrange(listing(*names)).pictures]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("names", "fix"),
    [
        (["train/a/1.jpg", "Training/a/2.jpg"], "keep one of them"),
        (["train/a/1.jpg", "val/a/2.jpg", "valid/a/3.jpg"], "keep one of them"),
        (["cats/1.jpg", "dogs/1.jpg", "test/1.jpg"], "move them into a folder train"),
        (["cats/1.jpg", "train/1.jpg"], "rename it"),
        (["data/cats/1.jpg", "data/dogs/1.jpg"], "name here/data instead"),
        (["data/train/cats/1.jpg"], "name here/data instead"),
        (["cats/train/1.jpg", "dogs/train/1.jpg", "dogs/val/2.jpg"], "swap them, to train/cats/"),
    ],
)
def test_a_doubtful_layout_is_refused_with_the_fix(names: list[str], fix: str) -> None:
    with pytest.raises(InvalidInput, match=fix) as caught:
        arrange(listing(*names))
    assert caught.value.field == "pictures"
    assert len(arrange(listing(*names), labels=False)) == len(names)  # where classes do not matter, it is taken


def test_names_are_in_natural_order() -> None:
    frames = ["frame1.jpg", "frame2.jpg", "Frame3.jpg", "frame10.jpg", "frame011.jpg"]
    assert [picture.name for picture in arrange(listing(*reversed(frames))).pictures] == frames
    shuffled = ["a10b10", "10", "2", "a9", "9", "02", "1", "a10b2"]
    assert sorted(shuffled, key=natural_key) == ["1", "02", "2", "9", "10", "a9", "a10b2", "a10b10"]


def test_training_takes_pictures_with_a_class_and_says_which_have_none() -> None:
    folder = for_training(arrange(listing("a/1.jpg", "b/1.jpg", "stray.jpg")))
    assert labelled(folder) == [("a/1.jpg", "a", "train"), ("b/1.jpg", "b", "train")]
    assert left_out(folder) == {"stray.jpg": "not in the folder of a class"}


@pytest.mark.parametrize(
    ("names", "fix"),
    [(["1.jpg"], "<class>/<picture>"), (["val/a/1.jpg", "test/a/1.jpg"], "name one of its folders train")],
)
def test_a_folder_that_training_cannot_use_is_refused_with_the_fix(names: list[str], fix: str) -> None:
    with pytest.raises(InvalidInput, match=fix):
        for_training(arrange(listing(*names)))


# --- users ---


def test_train_embed_and_the_server_read_a_folder_alike(tmp_path: Path) -> None:
    make(tmp_path, "Train/1/a.jfif", "Train/10/b", "Train/2/c.PNG", "valid/1/d.jpg", "valid/.DS_Store", "Train/3/")
    sent = read_labelled(tmp_path).entries
    there = Datasets([str(tmp_path)]).entries(str(tmp_path))
    expected = [
        ("Train/1/a.jfif", "1", "train"),
        ("Train/2/c.PNG", "2", "train"),
        ("Train/10/b", "10", "train"),
        ("valid/1/d.jpg", "1", "val"),
    ]
    assert [(entry.name, entry.label, entry.set) for entry in sent] == expected
    assert [(entry.name, entry.label, entry.set) for entry in there] == expected
    assert [(item.id, item.label) for item in read_items(tmp_path)] == [each[:2] for each in expected]


def test_a_command_takes_files_and_folders(tmp_path: Path) -> None:
    make(tmp_path, "in/2.jpg", "in/10.jpg", "in/deep/1.jpg", "one.jpg")
    make(tmp_path, "in/notes", data=b"text")
    folder = read_pictures([tmp_path / "one.jpg", tmp_path / "in"])
    assert [Path(path).relative_to(tmp_path).as_posix() for path in folder] == [
        "one.jpg",
        "in/2.jpg",
        "in/10.jpg",
        "in/deep/1.jpg",
    ]
    assert [item.name for item in folder.left_out] == [f"{tmp_path}/in/notes"]


def test_a_missing_folder_a_file_and_a_folder_without_pictures_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        read_folder(tmp_path / "nothing")
    make(tmp_path, "notes.txt", data=b"text")
    with pytest.raises(InvalidInput, match="is a file"):
        read_folder(tmp_path / "notes.txt")
    with pytest.raises(NotFound, match=r"no pictures below .*notes\.txt: not a picture"):
        read_folder(tmp_path)
