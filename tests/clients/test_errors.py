"""The tree of errors and the table of status codes."""

from __future__ import annotations

import grpc
from gramlet.errors import BY_CODE, GramletError


def test_every_error_has_a_status_code_of_its_own_under_its_name_and_number_in_grpc() -> None:
    assert set(BY_CODE.values()) == set(GramletError.__subclasses__())
    numbers = {status.name: status.value[0] for status in grpc.StatusCode}
    assert {code.name: int(code) for code in BY_CODE} == {code.name: numbers[code.name] for code in BY_CODE}
