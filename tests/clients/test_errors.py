"""The tree of errors and the table of status codes."""

from __future__ import annotations

from gramlet.errors import GramletError
from gramlet.transport.failures import BY_CODE


def test_the_table_of_failures_names_every_error_under_its_own_code() -> None:
    assert set(BY_CODE.values()) == set(GramletError.__subclasses__())
    assert all(status.value[0] == error.code and status.name == error.code.name for status, error in BY_CODE.items())
