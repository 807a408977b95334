"""Whatever is handed to a method of a client, nothing but a GramletError leaves it.

Every parameter of every public method is given values of other types, and the other parameters are right. The server
refuses what arrives. GRAMLET_LONG_TESTS=1 tries 2,000 examples of each method.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import gramlet
import pytest
from gramlet.errors import GramletError, InvalidInput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clients._async.calls import OBJECTIVE, PICTURE
from tests.clients.servers import EMBED, FEATURE, RUN, STYLIZE, TRAIN, Script, acollect, serving
from tests.clients.values import CALLS, EXAMPLES, PARAMETERS, Case, cases

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),  # of an example, by hypothesis
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of doubtful input: for people, not errors
]

ANY_EXAMPLE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that refuses every call."""
    refuses = Script([InvalidInput("refused")])
    with serving(dict.fromkeys((FEATURE, STYLIZE, TRAIN, EMBED, RUN), refuses)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[gramlet.AsyncClient]:
    async with gramlet.AsyncClient(address, timeout=20, patience=0) as client:
        yield client


def test_every_method_is_tried() -> None:
    public = {name for name in dir(gramlet.AsyncClient) if not name.startswith("_")}
    assert set(CALLS) == public - {"address", "close", "differentiate"}


@pytest.mark.parametrize("method", CALLS)
@ANY_EXAMPLE
@given(data=st.data())
async def test_only_errors_of_gramlet_leave_a_method(
    method: str, data: st.DataObject, client: gramlet.AsyncClient
) -> None:
    case: Case = data.draw(cases(method))
    with suppress(GramletError):
        result: Any = getattr(client, method)(*case.arguments, **case.options)
        if hasattr(result, "__await__"):
            result = await result
        if hasattr(result, "__anext__"):
            await acollect(result)


@ANY_EXAMPLE
@given(data=st.data())
async def test_only_errors_of_gramlet_leave_a_differentiation(data: st.DataObject, client: gramlet.AsyncClient) -> None:
    case: Case = data.draw(cases("differentiate"))
    with suppress(GramletError):
        async with client.differentiate(*case.arguments, **case.options) as differentiation:
            await differentiation.evaluate(PICTURE)


@ANY_EXAMPLE
@given(picture=PARAMETERS)
async def test_only_errors_of_gramlet_leave_an_evaluation(picture: Any, client: gramlet.AsyncClient) -> None:
    differentiation = client.differentiate(OBJECTIVE)
    with pytest.raises(GramletError):
        await differentiation.evaluate(picture)


@ANY_EXAMPLE
@given(data=st.data())
async def test_only_errors_of_gramlet_leave_the_making_of_a_client(data: st.DataObject) -> None:
    case: Case = data.draw(cases("client"))
    with suppress(GramletError):
        client = gramlet.AsyncClient(*case.arguments, **case.options)
        await client.close()
