"""What callers see of failures: the error that the server raised, or one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gramlet
import pytest
import trustme
from gramlet.embed.v1 import embed_pb2
from gramlet.errors import BY_CODE, GramletError
from gramlet.feature.v1 import feature_pb2

from tests.clients.servers import EMBED, FEATURE, STYLIZE, TRAIN, Script, async_client_of, free_port, serving

AT_ONCE: dict[str, Any] = {"patience": 0.0}


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
async def test_the_error_that_the_server_raised_is_the_error_that_the_caller_gets(kind: type[GramletError]) -> None:
    raised = kind("the message", field="a.field", retry_after=1.5)
    async with async_client_of({FEATURE: Script(GetModel=[raised])}, **AT_ONCE) as client:
        with pytest.raises(GramletError) as caught:
            await client.model()
    error = caught.value
    assert type(error) is kind
    assert (error.message, error.field, error.retry_after) == ("the message", "a.field", 1.5)
    assert error.request_id
    assert error.code is kind.code
    assert error.__suppress_context__


async def test_a_bug_in_the_server_gives_the_id_to_look_for() -> None:
    async with async_client_of({FEATURE: Script(GetModel=[ZeroDivisionError("secret")])}) as client:
        with pytest.raises(gramlet.InternalError) as caught:
            await client.model()
    assert caught.value.request_id in caught.value.message
    assert "secret" not in caught.value.message


async def test_a_server_that_is_not_there_is_one_line_with_the_address_and_the_way_to_start_one() -> None:
    address = f"127.0.0.1:{free_port()}"
    expected = rf"^no server at {address} \(Connection refused\): start one with `gramlet-server all`"
    async with gramlet.AsyncClient(address, **AT_ONCE) as client:
        with pytest.raises(gramlet.Unavailable, match=expected) as caught:
            await client.model()
    assert "\n" not in str(caught.value)


async def test_a_name_that_nobody_knows_is_a_server_that_is_not_there() -> None:
    async with gramlet.AsyncClient("no-such-host.invalid:1", **AT_ONCE) as client:
        with pytest.raises(gramlet.Unavailable) as caught:
            await client.model()
    assert "no server at no-such-host.invalid:1" in str(caught.value)


async def test_a_service_that_is_not_offered_is_named() -> None:
    async with async_client_of({FEATURE: Script()}) as client:
        with pytest.raises(gramlet.Unimplemented, match="does not offer Stylize of StylizeService "):
            await client.resume("run").result()


async def test_an_address_without_a_port_is_shown_with_the_one_that_is_tried() -> None:
    async with gramlet.AsyncClient("no-such-host.invalid", **AT_ONCE) as client:
        with pytest.raises(gramlet.Unavailable, match=r"no server at no-such-host\.invalid:50051 "):
            await client.model()


async def test_status_shows_what_the_token_is_for() -> None:
    services, refusal = (FEATURE, STYLIZE, TRAIN), gramlet.PermissionDenied("the token is not for this service")
    servicers = {**dict.fromkeys(services, Script([refusal])), EMBED: Script(ListMaps=[_no_maps])}
    async with async_client_of(servicers) as client:
        status = await client.status()
    assert status.is_serving
    assert status.model is None
    assert status.reasons == dict.fromkeys(services, refusal.message)


def _no_maps(request: Any, context: Any) -> Any:
    return embed_pb2.ListMapsResponse()


async def test_a_reply_that_is_too_large_is_refused_with_advice() -> None:
    large = feature_pb2.GetModelResponse(backbone="x" * (65 * 1024 * 1024))
    with serving({FEATURE: Script(GetModel=[lambda *_: large])}, max_message_bytes=2**30) as server:
        async with gramlet.AsyncClient(f"127.0.0.1:{server.port}") as client:
            with pytest.raises(gramlet.InvalidInput) as caught:
                await client.model()
    assert "larger than max" in str(caught.value)


@pytest.mark.parametrize("timeouts", [({"timeout": 0.1}, {}), ({}, {"timeout": 0.1})], ids=["client", "call"])
async def test_the_timeout_ends_a_call(timeouts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    release = Event()

    def wait(request: Any, context: Any) -> feature_pb2.GetModelResponse:
        release.wait(30)
        return feature_pb2.GetModelResponse()

    of_client, of_call = timeouts
    async with async_client_of({FEATURE: Script(GetModel=[wait])}, **of_client) as client:
        with pytest.raises(gramlet.DeadlineExceeded, match="timeout"):
            await client.model(**of_call)
        release.set()


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An authority, and a certificate for localhost."""
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    paths = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key", "other")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    issued.private_key_pem.write_to_path(str(paths["key"]))
    trustme.CA().cert_pem.write_to_path(str(paths["other"]))
    return paths


@pytest.fixture
def tls_address(pems: dict[str, Path]) -> Iterator[str]:
    """A server that speaks TLS and wants a token."""
    script = Script(GetModel=[lambda *_: feature_pb2.GetModelResponse(backbone="resnet50")])
    settings = {"tls_cert": pems["cert"], "tls_key": pems["key"], "tokens": ("secret",)}
    with serving({FEATURE: script}, **settings) as server:
        yield f"127.0.0.1:{server.port}"


async def test_tls_and_a_token_open_the_door(tls_address: str, pems: dict[str, Path]) -> None:
    async with gramlet.AsyncClient(tls_address, token="secret", tls=gramlet.Tls(ca=pems["ca"])) as client:
        assert (await client.model()).backbone == "resnet50"


async def test_a_wrong_token_does_not(tls_address: str, pems: dict[str, Path]) -> None:
    async with gramlet.AsyncClient(tls_address, token="guess", tls=gramlet.Tls(ca=pems["ca"])) as client:
        with pytest.raises(gramlet.Unauthenticated):
            await client.model()


async def test_a_certificate_of_another_authority_is_not_believed(tls_address: str, pems: dict[str, Path]) -> None:
    async with gramlet.AsyncClient(tls_address, tls=gramlet.Tls(ca=pems["other"]), **AT_ONCE) as client:
        with pytest.raises(gramlet.Unavailable, match=r"no TLS with 127\.0\.0\.1.*issuer"):
            await client.model()


async def test_several_addresses_are_checked_against_the_first_name(tls_address: str, pems: dict[str, Path]) -> None:
    options: dict[str, Any] = {"token": "secret", "tls": gramlet.Tls(ca=pems["ca"])}
    async with gramlet.AsyncClient(f"{tls_address},{tls_address}", **options) as client:
        assert (await client.model()).backbone == "resnet50"
