"""The backend of the studio: what it answers, and whom it rejects."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from gramlet.cli.__main__ import main
from gramlet_studio.library import Library
from PIL import Image

from tests.e2e.cluster import GramletServer
from tests.studio.conftest import StudioProcess, studio_for


def form(*files: tuple[str, bytes], **fields: str) -> tuple[bytes, dict[str, str]]:
    """A multipart form, and the header that goes with it."""
    parts = [f'--x\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    body = "".join(parts).encode()
    for name, data in files:
        body += (
            f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        )
    return body + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


def png(color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(out, "PNG")
    return out.getvalue()


def status_of(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> int:
    request = urllib.request.Request(url, b"{}" if method == "POST" else None, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def failure(
    studio: StudioProcess, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        studio.call(method, path, body, headers)
    with caught.value as error:
        return error.code, json.loads(error.read())


def test_only_its_own_names_are_served(studio: StudioProcess) -> None:
    assert status_of(f"{studio.url}/") == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert status_of(f"{studio.url}/", headers={"host": host}) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
def test_only_its_own_page_changes_anything(studio: StudioProcess, headers: dict[str, str]) -> None:
    assert status_of(f"{studio.url}/api/folders", "POST", headers) == 403


def test_other_sites_read_nothing(studio: StudioProcess) -> None:
    assert status_of(f"{studio.url}/api/runs", headers={"sec-fetch-site": "cross-site"}) == 403
    assert status_of(f"{studio.url}/api/runs", headers={"sec-fetch-site": "same-origin"}) == 200


def test_every_reply_forbids_foreign_scripts(studio: StudioProcess) -> None:
    for path in ("/", "/static/app.js", "/api/runs", "/nothing"):
        request = urllib.request.Request(studio.url + path)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                headers = reply.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_a_picture_is_kept_and_a_bad_one_fails_alone(studio: StudioProcess) -> None:
    body, headers = form(("a.png", png()), ("b.svg", b"<svg onload=alert(1)>"), ("c.png", b""))
    good, bad, empty = studio.call("POST", "/pictures", body, headers)["pictures"]
    assert (good["width"], good["height"], good["name"]) == (40, 30, "a.png")
    assert "not a picture" in bad["error"]
    assert "empty" in empty["error"]
    shown = studio.call("GET", f"/pictures/{good['id']}/jpeg?side=64")
    assert Image.open(io.BytesIO(shown)).format == "JPEG"
    assert failure(studio, "GET", "/pictures/../../etc/passwd/jpeg")[0] == 404
    assert failure(studio, "GET", f"/pictures/{good['id']}/jpeg?side=5000")[0] == 400


def test_a_body_that_is_too_large_is_not_read(studio: StudioProcess) -> None:
    host, _, port = studio.url.removeprefix("http://").partition(":")
    for line in (b"content-length: 97000000", b"transfer-encoding: chunked"):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"POST /api/folders HTTP/1.1\r\nhost: {host}:{port}\r\norigin: {studio.url}\r\n".encode()
            connection.sendall(head + line + b"\r\n\r\n")
            if b"chunked" in line:
                megabyte = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
                with contextlib.suppress(OSError):  # it hangs up before all of it is sent
                    for _ in range(97):
                        connection.sendall(megabyte)
            assert connection.recv(64).split()[1] in (b"400", b"413")


def test_what_is_wrong_with_an_order_names_the_field(studio: StudioProcess) -> None:
    order = studio.sample_order()
    for change, field in (
        ({"styles": []}, "styles"),
        ({"content": "../x"}, "content"),
        ({"settings": {"size": 1}}, "size"),
        ({"settings": {"sizes": 1}}, "sizes"),
    ):
        code, said = failure(studio, "POST", "/stylizations", {**order, **change})
        assert code in (400, 404)
        assert said["field"] == field
    assert failure(studio, "POST", "/stylizations", b"no json")[0] == 400
    for look, field in (
        ({"stage": "nowhere", "channel": 0}, "stage"),
        ({"stage": "conv1", "channel": "0"}, "channel"),
        ({"stage": "conv1", "channel": 64}, "channel"),
        ({"stage": "conv1", "channel": 0, "folder": "x"}, "folder"),
    ):
        code, said = failure(studio, "POST", "/see", look)
        assert code in (400, 404)
        assert field in said["field"]


def test_a_run_is_followed_by_any_number_of_browsers_without_a_gap(studio: StudioProcess) -> None:
    order = studio.sample_order()
    run_id = studio.call("POST", "/stylizations", order)["run"]
    live = studio.events("stylize", run_id)
    events = studio.events("stylize", run_id)  # a second window, after the end: without previews that are out of date
    names = [event["event"] for _, event in events]
    assert names[0] == "reset"
    assert names[-2:] == ["result", "end"]
    assert [event["iteration"] for _, event in events if event["event"] == "iteration"] == list(range(1, 9))
    assert [each for each in live if each in events] == events
    place = names.index("iteration")
    assert studio.events("stylize", run_id, events[place][0]) == events[place + 1 :]  # cut off after that one
    assert studio.events("stylize", run_id, "of-another-process-7") == events
    assert studio.call("GET", f"/runs/stylize/{run_id}/events", headers={"last-event-id": events[-1][0]}) == b""
    assert studio.call("GET", f"/runs/stylize/{run_id}")["order"]["content"] == order["content"]


def test_a_result_has_its_settings_in_its_metadata_and_leaves_no_trace_when_deleted(studio: StudioProcess) -> None:
    run_id = studio.call("POST", "/stylizations", studio.sample_order(content_weight=2.5))["run"]
    studio.events("stylize", run_id)
    with Image.open(io.BytesIO(studio.call("GET", f"/runs/stylize/{run_id}/result.png?download"))) as picture:
        picture.load()
        about = json.loads(picture.info["gramlet"])
    assert about["run"] == run_id
    assert about["settings"]["content_weight"] == 2.5
    assert about["settings"]["style_stages"]  # of the preset
    assert Image.open(io.BytesIO(studio.call("GET", f"/runs/stylize/{run_id}/thumbnail.jpg"))).format == "JPEG"
    assert run_id in {run["run_id"] for run in studio.call("GET", "/runs")["runs"]}
    studio.call("DELETE", f"/runs/stylize/{run_id}")
    assert failure(studio, "GET", f"/runs/stylize/{run_id}")[0] == 404
    assert not [path for path in studio.data.rglob("*") if run_id in path.name]


def test_a_fork_starts_from_the_picture_of_a_run(studio: StudioProcess) -> None:
    order = studio.sample_order(size=544, iterations=1, scales=1)
    run_id = studio.call("POST", "/stylizations", order)["run"]
    studio.events("stylize", run_id)
    # While a run is under way, its preview is the picture: not smaller than the run's own.
    preview = Image.open(io.BytesIO(studio.call("GET", f"/runs/stylize/{run_id}/pictures/preview")))
    assert max(preview.size) == 544
    initial = studio.call("POST", f"/stylizations/{run_id}/fork", {})["picture"]
    forked = studio.call("POST", "/stylizations", {**studio.sample_order(), "initial": initial})["run"]
    assert studio.events("stylize", forked)[-1][1]["state"] == "succeeded"
    assert failure(studio, "POST", f"/stylizations/{run_id}/adjust", {"content_weight": 2})[0] == 409


def test_a_folder_is_understood_and_its_names_stay_data(studio: StudioProcess, folder: Path) -> None:
    identifier = send_folder(studio, folder)
    found = studio.call("GET", f"/folders/{identifier}")
    assert {each["name"]: each["count"] for each in found["classes"]} == {"red": 12, "blue": 12}
    assert [each["name"] for each in found["leftOut"]] == ["notes.txt"]
    sheet = Image.open(io.BytesIO(studio.call("GET", f"/folders/{identifier}/sheets/0.jpg")))
    assert sheet.width == found["sheets"]["columns"] * found["sheets"]["tile"]
    body, headers = form(("x", png()), names='["/tmp//x.png"]')
    other = studio.call("POST", "/folders", {"name": "/etc"})["folder"]
    studio.call("POST", f"/folders/{other}/files", body, headers)
    studio.call("POST", f"/folders/{other}/end", {})
    names = {path.name for path in studio.data.rglob("*") if path.is_file()}
    assert all(len(name) >= 16 for name in names)  # hashes and ids


def send_folder(studio: StudioProcess, folder: Path) -> str:
    """Sends a folder as the page does; returns its id."""
    identifier = str(studio.call("POST", "/folders", {"name": folder.name})["folder"])
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = json.dumps([path.relative_to(folder).as_posix() for path in paths])
    body, headers = form(*[("file", path.read_bytes()) for path in paths], names=names)
    studio.call("POST", f"/folders/{identifier}/files", body, headers)
    studio.call("POST", f"/folders/{identifier}/end", {})
    return identifier


def test_the_next_process_of_the_studio_knows_what_happened(studio: StudioProcess, server: GramletServer) -> None:
    run_id = studio.call("POST", "/stylizations", studio.sample_order())["run"]
    events = [event for _, event in studio.events("stylize", run_id) if event["event"] == "iteration"]
    with studio_for(server.address, studio.data) as other:
        again = [event for _, event in other.events("stylize", run_id)]
        assert [event for event in again if event["event"] == "iteration"] == events
        assert again[-1]["state"] == "succeeded"
        assert other.call("GET", f"/runs/stylize/{run_id}/pictures/result").startswith(b"\x89PNG")


def test_the_command_line_says_how_to_install_a_studio_that_is_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gramlet.cli.studio.find_spec", lambda _: None)
    assert main(["studio"]) == 1
    assert "pip install gramlet-studio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--data", "FILE"], "--data: FILE is a file, not a folder"),
        (["--data", "FILE/below/it"], "--data: FILE is a file, not a folder"),
        (["--port", "TAKEN"], "--port: cannot listen on 127.0.0.1:TAKEN"),
        (["--port", "99999"], "--port: '99999' is not a port, 0 to 65535"),
        (["--host", "192.0.2.1"], "--host: cannot listen on 192.0.2.1:8765"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"FILE": str(file), "TAKEN": str(taken.getsockname()[1])}
        given = [re.sub("FILE|TAKEN", lambda found: names[found[0]], flag) for flag in flags]
        with contextlib.suppress(SystemExit):  # of argparse
            assert main(["studio", "--data", str(tmp_path / "data"), *given]) == 2
        said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.sub("FILE|TAKEN", lambda found: names[found[0]], complaint) in said


def test_a_studio_says_what_is_amiss_and_ends_quietly(tmp_path: Path) -> None:
    flags = ["--host", "0.0.0.0", "--port", "0", "--open", "--server", "127.0.0.1:1", "--data", tmp_path]
    environ = {"PATH": "", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}  # without a browser
    command = [sys.executable, "-m", "gramlet.cli", "studio", *flags]
    with subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    for said in ("0.0.0.0 is open to everybody", "no server at 127.0.0.1:1", "nothing was opened"):
        assert any(said in line for line in lines)


def test_pictures_that_nothing_names_are_deleted_after_a_day(tmp_path: Path) -> None:
    library = Library(tmp_path)
    named, unnamed, new = (library.add_picture(png(color)).id for color in ("red", "green", "blue"))
    library.save("orders/stylize", "a" * 16, {"content": named})
    for identifier in (named, unnamed):
        library.thumbnail(identifier, 64)
        os.utime(library.path(identifier), (0, 0))
    library.clean()
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {named, new}
    assert [path.name for path in (tmp_path / "thumbs").iterdir()] == [f"{named}-64.jpg"]
