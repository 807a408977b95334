from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from gramlet.errors import InvalidInput
from gramlet.types import Limits
from gramlet_server.runtime.config import Settings, add_settings, read_settings
from gramlet_server.runtime.flags import Parser


def parse(*arguments: str, **environ: str) -> Settings:
    parser = Parser(prog="gramlet-server")
    add_settings(parser, environ)
    return read_settings(parser.parse_args(arguments), environ)


def test_without_flags_the_defaults_hold() -> None:
    assert parse() == Settings()
    assert parse().server.address == "127.0.0.1:50051"
    assert parse().limits == Limits()


def test_flags_win_over_variables_and_variables_over_defaults() -> None:
    environ = {"GRAMLET_PORT": "1", "GRAMLET_DRAIN_SECONDS": "2.5", "GRAMLET_FEATURES": ""}
    settings = parse("--port", "7", **environ)
    assert (settings.server.port, settings.server.drain_seconds) == (7, 2.5)
    assert settings.features.features == ""


@pytest.mark.parametrize(("text", "size"), [("64MiB", 2**26), ("512K", 2**19), ("1 GB", 2**30), ("1000", 1000)])
def test_sizes_are_said_in_any_unit(text: str, size: int) -> None:
    assert parse("--max-message-bytes", text).server.max_message_bytes == size


def test_element_types_may_be_said_in_short() -> None:
    assert parse("--precision", "bf16").network.precision == "bfloat16"
    assert parse("--precision", "fp16").network.precision == "float16"


def test_a_switch_may_stand_alone() -> None:
    assert parse("--studio").studio.studio
    assert not parse("--studio", "off", GRAMLET_STUDIO="on").studio.studio


def test_every_flag_has_a_variable_and_a_line_of_help() -> None:
    parser = Parser(prog="gramlet-server")
    add_settings(parser, {})
    text = parser.format_help()
    for group in dataclasses.fields(Settings):
        for field in dataclasses.fields(group.default):  # type: ignore[arg-type]
            if field.metadata:
                assert f"--{field.name.replace('_', '-')} " in text
                assert f"GRAMLET_{field.name.upper()}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "--port: 99999 is not a port, 0 to 65535"),
        (["--port", "http"], "--port: 'http' is not a whole number, 0 or more"),
        (["--device", "gpu"], "--device: 'gpu' is none of auto, cpu, cuda and cuda:N"),
        (["--max-calls", "0"], "--max-calls: '0' is not a whole number, 1 or more"),
        (["--drain-seconds", "-1"], "--drain-seconds: '-1' is not a number of seconds, 0 or more"),
        (["--drain-seconds", "nan"], "--drain-seconds: 'nan' is not a number of seconds, 0 or more"),
        (["--max-message-bytes", "much"], "--max-message-bytes: 'much' is not a size such as 64MiB"),
        (["--tls-cert", "/nowhere"], "--tls-cert: /nowhere: no such file"),
        (["--log-format", "xml"], "--log-format: 'xml' is none of text, json"),
        (["--batch-gradients", "maybe"], "--batch-gradients: 'maybe' is neither on nor off"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"gramlet-server: {message} (see gramlet-server --help)\n"


def test_a_wrong_variable_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(GRAMLET_PORT="x")
    assert "GRAMLET_PORT: 'x' is not a whole number" in capsys.readouterr().err


def test_tokens_come_from_a_file_and_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("one\n\n two \n")
    settings = parse("--token-file", str(path), GRAMLET_TOKENS="three,four")
    assert (settings.server.token_file, settings.server.tokens) == (path, ("three", "four"))
    assert "three" not in repr(settings)


def test_an_empty_token_file_does_not_open_the_server(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.touch()
    with pytest.raises(InvalidInput, match="holds no token"):
        parse("--token-file", str(path))


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-client-ca", "--features-cert"])
def test_half_a_pair_of_tls_files_is_refused(flag: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    path.touch()
    with pytest.raises(InvalidInput):
        parse(flag, str(path))


@pytest.mark.parametrize(
    ("host", "exposed"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True), ("10.0.0.1", True)],
)
def test_a_host_that_others_reach_is_exposed_unless_guarded(host: str, exposed: bool) -> None:
    assert parse("--host", host).server.exposed is exposed
    assert not parse("--host", host, GRAMLET_TOKENS="one").server.exposed


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert parse("--host", "::1").server.address == "[::1]:50051"
