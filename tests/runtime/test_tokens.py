"""Tokens have names and scopes; files keep their hashes; a name that is at its limit leaves the others unharmed."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from gramlet.errors import GramletError, InvalidInput, Overloaded, PermissionDenied, Unauthenticated
from gramlet.transport.channel import ON_BEHALF_OF
from gramlet.transport.connection import call_metadata
from gramlet_server.__main__ import main
from gramlet_server.process.identity import Caller, caller
from gramlet_server.runtime.interceptors import NameLimits
from gramlet_server.runtime.metrics import Metrics
from gramlet_server.runtime.tokens import Tokens, new_token, read_tokens

from tests.guards.paths import rpcs

TRAIN = "/gramlet.train.v1.TrainService/"
READS = (
    *("GetModel", "Extract", "ExtractStream", "Differentiate", "Descend", "See"),
    *("GetStatus", "Predict", "ListHeads", "GetHead", "ExportHead"),
    *("Transform", "DrawMap", "ListMaps", "GetMap", "ListRuns", "GetRun"),
)
"""The calls that change nothing in the store."""


def call_of(token: str, method: str = TRAIN + "ListHeads", behalf: str = "") -> Any:
    metadata = (("authorization", f"Bearer {token}"), *([(ON_BEHALF_OF, behalf)] if behalf else []))
    return SimpleNamespace(method=method, invocation_metadata=metadata)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_a_new_token_is_shown_once_and_its_line_holds_only_the_hash(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["token", "new", "alice", "--scopes", "train,read-only"]) == 0
    printed = capsys.readouterr()
    token, said = printed.out.strip(), printed.err  # all of which may be appended to the file
    assert token not in said
    tokens = Tokens(write(tmp_path / "tokens", "# who", said))
    assert tokens(call_of(token)) == Caller("alice", False, frozenset({"train"}), True, may_represent=False)


@pytest.mark.parametrize("name", ["two words", "", "a:b", "x" * 65])
def test_a_name_that_cannot_be_in_a_line_gets_no_token(name: str) -> None:
    with pytest.raises(InvalidInput):
        new_token(name)


@pytest.mark.parametrize("scopes", ["nonsense", "", " , "])
def test_scopes_that_are_none_give_no_token(scopes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "new", "alice", "--scopes", scopes]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gramlet-server: --scopes: ")


@pytest.mark.parametrize("line", ["two words:token", "alice:", "alice:token:everything", ":token"])
def test_a_line_that_cannot_be_read_is_named_without_its_token(line: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--token-file: tokens, line 2: ") as caught:
        read_tokens(["bob:other", line], "tokens")
    assert "token'" not in str(caught.value).replace("--token-file", "")


def test_two_lines_with_one_token_are_refused() -> None:
    with pytest.raises(InvalidInput, match="line 2: an earlier line has this token"):
        read_tokens(["alice:same", "bob:same"], "tokens")


def test_a_token_without_a_name_sees_everything() -> None:
    assert Tokens(listed=["plain"])(call_of("plain")) == Caller()
    assert Tokens()(call_of("whatever")) == Caller()


def test_scopes_say_which_calls_a_token_is_for() -> None:
    tokens = Tokens(listed=["alice:a:stylize", "bob:b:read-only", "carol:c:all"])
    with pytest.raises(PermissionDenied):
        tokens(call_of("a"))
    assert tokens(call_of("a", "/gramlet.stylize.v1.StylizeService/Stylize")).name == "alice"
    assert tokens(call_of("a", "/gramlet.run.v1.RunService/StopRun")).name == "alice"
    with pytest.raises(PermissionDenied):
        tokens(call_of("b", TRAIN + "Train"))
    assert tokens(call_of("b")).name == "bob"
    assert tokens(call_of("c", TRAIN + "Train")).sees_all


@pytest.mark.parametrize("rpc", rpcs())
def test_a_token_that_may_only_read_is_refused_by_every_call_that_changes_something(rpc: str) -> None:
    tokens = Tokens(listed=["bob:b:read-only"])
    if rpc.rpartition("/")[2] in READS:
        assert tokens(call_of("b", f"/{rpc}")).read_only
    else:
        with pytest.raises(PermissionDenied, match="may only read"):
            tokens(call_of("b", f"/{rpc}"))


def test_a_token_speaks_for_others_only_with_the_scope() -> None:
    tokens = Tokens(listed=["alice:a", "stylize:s:feature,on-behalf,all", "plain"], most_runs=3)
    with pytest.raises(PermissionDenied, match="scope on-behalf"):
        tokens(call_of("a", behalf="bob"))
    bob = tokens(call_of("s", "/gramlet.feature.v1.FeatureService/Extract", behalf="bob"))
    assert (bob.name, bob.via, bob.sees_all, bob.most_runs, bob.may_represent) == ("bob", "stylize", False, 3, False)
    with pytest.raises(PermissionDenied, match="not for the train service"):
        tokens(call_of("s", behalf="bob"))
    assert tokens(call_of("plain", behalf="bob")).name == Tokens()(call_of("", behalf="bob")).name == "bob"
    with pytest.raises(InvalidInput, match="x-gramlet-on-behalf-of"):
        tokens(call_of("plain", behalf="no name"))


def test_a_server_calls_others_on_behalf_of_its_caller(serving: Any) -> None:
    """As StylizeService calls FeatureService: the name arrives, and the log says through whom."""
    seen = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(dict(call_metadata("services"))[ON_BEHALF_OF])
        return request

    with serving(tokens=("alice:a",)) as running:
        running.echo.answer = answer
        running.call("unary_unary", metadata=(("authorization", "Bearer a"),))
    assert seen == ["alice"]


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "tokens", "alice:one")
    tokens = Tokens(path)
    write(path, "alice:two")
    tokens.try_reload()
    assert tokens(call_of("two")).name == "alice"
    with pytest.raises(Unauthenticated):
        tokens(call_of("one"))
    for broken in ("", "alice:two:nonsense"):
        write(path, broken)
        tokens.try_reload()
        assert tokens(call_of("two")).name == "alice"
    assert "keeping the tokens in use" in caplog.text
    assert "as they are: keep only their hashes" in caplog.text


def test_names_and_not_tokens_are_in_logs_and_metrics(serving: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    metrics = Metrics()
    seen = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(caller.get().name)
        return request

    with serving(tokens=("alice:secret",), metrics=metrics) as running:
        running.echo.answer = answer
        running.call("unary_unary", metadata=(("authorization", "Bearer secret"),))
    assert seen == ["alice"]
    assert metrics.registry.get_sample_value("gramlet_caller_requests_total", {"caller": "alice", "code": "OK"}) == 1
    assert "(alice)" in caplog.text
    assert "secret" not in caplog.text


def test_a_name_at_its_limit_of_calls_leaves_another_unharmed(serving: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"wait":
            entered.set()
            assert go_on.wait(30)
        return request

    alice, bob = ((("authorization", f"Bearer {token}"),) for token in ("a", "b"))
    with serving(tokens=("alice:a", "bob:b"), name_calls=1) as running:
        running.echo.answer = answer
        waiting = running.channel.unary_unary("/test.Echo/unary_unary").future(b"wait", metadata=alice)
        assert entered.wait(30)
        with pytest.raises(grpc.RpcError) as failure:
            running.call("unary_unary", metadata=alice)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert running.call("unary_unary", metadata=bob)[0] == [b"hello"]
        go_on.set()
        assert waiting.result(30) == b"wait"


def test_a_name_may_begin_so_many_calls_a_second() -> None:
    now = 100.0
    limits = NameLimits(0, 2.0, clock=lambda: now)

    def begins(name: str) -> float | None:
        try:
            with limits(SimpleNamespace(caller=Caller(name))):  # type: ignore[arg-type]
                return None
        except GramletError as error:
            assert isinstance(error, Overloaded)  # noqa: PT017  # any other error fails the test
            return error.retry_after

    assert [begins("alice") for _ in range(11)] == [None] * 11  # a burst of five seconds' worth
    assert begins("alice") == pytest.approx(0.5)
    assert begins("bob") is None
    now += 0.5
    assert begins("alice") is None
    assert begins("alice") is not None
