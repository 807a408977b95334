"""clients/node in the machine's Node: a stylization streamed by another language's gRPC."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trustme
from gramlet import Client
from PIL import Image

from tests.e2e.cluster import Cluster, GramletServer, free_port

SOURCES = Path(__file__).parents[2] / "clients" / "node"
NODE = Path(__file__).parents[2] / "protos"

pytestmark = pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="npm or node is absent")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of clients/node beside the protos, as the repository has them, with its packages installed."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(NODE, root / "protos")
    here = root / "clients" / "node"
    shutil.copytree(SOURCES, here, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=here, check=True, capture_output=True)
    assert not (here / "package-lock.json").exists()
    return here


@pytest.fixture(scope="module")
def stylize(cluster: Cluster, replicas: list[GramletServer]) -> GramletServer:
    server = cluster.server(
        "stylize", f"--features={replicas[0].address}", f"--store={cluster.folder / 'node'}", "--state-seconds=1"
    )
    server.wait_until_ready()
    return server


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("pictures") / name for name in ("content.png", "style.png")]
    for path, pixels in zip(paths, np.random.default_rng(3).integers(0, 256, (2, 48, 64, 3), np.uint8), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def command(pictures: list[Path], server: str, *more: str) -> list[str]:
    return ["node", "stylize.js", *map(str, pictures), f"--server={server}", "--size=64", "--iterations=20", *more]


def test_a_stylization_is_streamed_and_saved_and_equals_pythons(
    example: Path, stylize: GramletServer, pictures: list[Path], tmp_path: Path
):
    out = [f"--out={tmp_path / 'result.png'}", f"--preview={tmp_path / 'preview-%d.jpg'}", "--preview-every=5"]
    done = subprocess.run(command(pictures, stylize.address, *out), cwd=example, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("iteration 20: loss ")]
    assert {path.name for path in tmp_path.glob("preview-*")} >= {"preview-20.jpg"}
    for preview in tmp_path.glob("preview-*"):
        with Image.open(preview) as picture:
            assert picture.size == (64, 48)
    with Client(stylize.address) as client:
        result = client.stylize(*pictures, size=64, iterations=20).result()
    assert (tmp_path / "result.png").read_bytes() == result.png


def test_a_lost_server_is_waited_for_and_the_run_goes_on(
    example: Path, stylize: GramletServer, pictures: list[Path], tmp_path: Path
):
    words = command(pictures, stylize.address, f"--out={tmp_path / 'result.png'}", f"--preview={tmp_path / '%d.jpg'}")
    lines = []
    with subprocess.Popen(words, cwd=example, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if line.startswith("iteration 8:"):
                stylize.kill()
                stylize.start()
    assert process.returncode == 0, "".join(lines)
    iterations = [int(line.split()[1].rstrip(":")) for line in lines if line.startswith("iteration ")]
    assert iterations == list(range(1, 21))
    with Client(stylize.address) as client:
        result = client.stylize(*pictures, size=64, iterations=20).result()
    assert (tmp_path / "result.png").read_bytes() == result.png


def test_an_adjustment_is_reported(example: Path, stylize: GramletServer, pictures: list[Path], tmp_path: Path):
    # So many iterations that the run has not ended when it is adjusted; then it is stopped.
    words = command(pictures, stylize.address, "--iterations=5000", f"--out={tmp_path / 'x.png'}", "--preview-every=0")
    with (
        subprocess.Popen(words, cwd=example, stdout=subprocess.PIPE, text=True) as process,
        Client(stylize.address) as client,
    ):
        assert process.stdout
        for line in process.stdout:
            if line.startswith("run "):
                client.adjust(line.split()[1].rstrip(":"), content_weight=3.5)
            if line.startswith("adjusted after iteration "):
                assert "content 3.5" in line
                break
        else:
            pytest.fail("the run ended without an adjustment")
        process.kill()


def test_help_needs_no_server_and_an_absent_server_is_given_up(example: Path, pictures: list[Path]):
    done = subprocess.run(["node", "stylize.js", "--help"], cwd=example, capture_output=True, text=True, check=True)
    assert "--tls-ca" in done.stdout
    absent = command(pictures, f"127.0.0.1:{free_port()}", "--wait=0.5")
    done = subprocess.run(absent, cwd=example, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_no_picture_that_was_given_is_overwritten(example: Path, pictures: list[Path]):
    before = pictures[0].read_bytes()
    wrong = command(pictures, f"127.0.0.1:{free_port()}", f"--out={pictures[0]}")
    done = subprocess.run(wrong, cwd=example, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is one of the pictures" in done.stderr
    assert pictures[0].read_bytes() == before


@pytest.mark.parametrize("flag", ["--out", "--preview"])
@pytest.mark.parametrize(
    ("path", "reason"), [("/dev/null/x.png", "cannot be written"), ("", "an empty name"), (".", "it is a folder")]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_call(
    example: Path, pictures: list[Path], tmp_path: Path, flag: str, path: str, reason: str
):
    out = f"--out={tmp_path / 'made' / 'result.png'}"
    wrong = command(pictures, f"127.0.0.1:{free_port()}", out, f"{flag}={path}")
    done = subprocess.run(wrong, cwd=example, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert reason in done.stderr  # nothing is said of the server, which is absent
    assert (tmp_path / "made").is_dir() is (flag == "--preview")


def test_tls_with_an_authority_of_ones_own(
    example: Path, cluster: Cluster, pictures: list[Path], tmp_path: Path, replicas: list[GramletServer]
):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    server = cluster.server(
        *("stylize", f"--features={replicas[0].address}", f"--store={tmp_path / 'store'}"),
        *(f"--tls-cert={tmp_path / 'cert.pem'}", f"--tls-key={tmp_path / 'key.pem'}"),
    )
    server.ready = lambda: is_listening(server.port)
    server.wait_until_ready()
    words = command(pictures, f"localhost:{server.port}", f"--tls-ca={tmp_path / 'ca.pem'}", "--preview-every=0")
    done = subprocess.run([*words, f"--out={tmp_path / 'r.png'}"], cwd=example, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.png").exists()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_wrong_is_said_in_a_line(example: Path, stylize: GramletServer, tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    done = subprocess.run(command([broken, broken], stylize.address), cwd=example, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "stylization.content" in done.stderr
