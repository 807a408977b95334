from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest
from gramlet.errors import BY_CODE, DeadlineExceeded, GramletError, InternalError, OtherWeights, Overloaded, Unavailable
from gramlet.transport.connection import Attempts, Contact
from gramlet.transport.failures import decode_rpc_error, shows_a_server
from gramlet.transport.retry import AT_ONCE, RetryPolicy

POLICY = RetryPolicy(patience=60, first_contact=2, shortest=0.1, longest=5)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def delay(error: GramletError, attempt: int = 1, elapsed: float = 0.0, **options: object) -> float | None:
    arguments: dict[str, object] = {"remaining": None, "contacted": True, "dice": lambda: 1.0}
    return POLICY.delay(error, attempt=attempt, elapsed=elapsed, **(arguments | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_only_a_lost_or_full_server_is_asked_again(kind: type[GramletError]) -> None:
    assert (delay(kind("x")) is not None) == (kind in (Unavailable, Overloaded))


def test_delays_double_up_to_the_longest() -> None:
    assert [delay(Unavailable("x"), n) for n in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert delay(Unavailable("x"), attempt=10_000) == 5


def test_jitter_takes_up_to_half() -> None:
    assert delay(Unavailable("x"), 4, dice=lambda: 0.0) == 0.4


@pytest.mark.parametrize("dice", [0.0, 0.5, 0.999])
def test_what_the_server_asks_for_is_never_undercut(dice: float) -> None:
    asked = delay(Overloaded("full", retry_after=7.0), dice=lambda: dice)
    assert asked is not None
    assert 7.0 <= asked <= 7.0 * 1.25


def test_other_replicas_are_looked_for_when_one_has_other_weights() -> None:
    other = OtherWeights("x")
    assert [delay(other, elsewhere=n) for n in (1, 2, 3, 12)] == [0.02, 0.04, 0.08, 0.25]
    assert delay(other, elsewhere=13) is None
    assert delay(other, elsewhere=1, elapsed=9.0) is not None  # a service has looked for a while itself
    assert delay(other, elsewhere=2, elapsed=9.0) is None


def test_patience_ends() -> None:
    assert delay(Unavailable("x"), 8, elapsed=54) is not None
    assert delay(Unavailable("x"), 8, elapsed=56) is None


def test_a_server_that_never_answered_is_given_up_soon() -> None:
    assert delay(Unavailable("x"), 3, elapsed=1.9, contacted=False) is None
    assert delay(Overloaded("x"), 3, elapsed=1.9, contacted=False) is not None


def test_a_delay_that_outlasts_the_deadline_is_not_waited_for() -> None:
    assert delay(Overloaded("full", retry_after=3.0), remaining=2.0) is None
    assert delay(Overloaded("full", retry_after=3.0), remaining=9.0) is not None


def test_at_once_means_at_once() -> None:
    assert AT_ONCE.delay(Unavailable("x"), attempt=1, elapsed=0, remaining=None, contacted=True) is None


def test_giving_up_raises_the_error_itself() -> None:
    error = Unavailable("gone")
    with pytest.raises(Unavailable) as caught:
        Attempts(AT_ONCE, Contact(), None).delay_after(error)
    assert caught.value is error
    assert caught.value.__suppress_context__


def test_an_answer_makes_patience_start_anew() -> None:
    clock = Clock()
    attempts = Attempts(POLICY, Contact(), None, clock)
    attempts.answered()
    attempts.delay_after(Unavailable("x"))
    clock.now = 59.0
    attempts.answered()
    clock.now = 3600.0  # it worked for an hour
    attempts.delay_after(Unavailable("x"))
    clock.now = 3661.0
    with pytest.raises(Unavailable):
        attempts.delay_after(Unavailable("x"))


def test_a_call_that_kills_every_server_is_given_up() -> None:
    attempts = Attempts(POLICY, Contact(), None, Clock())
    for _ in range(POLICY.fruitless):
        attempts.answered(new=False)
        attempts.delay_after(Unavailable("x"))
    attempts.answered(new=False)
    with pytest.raises(Unavailable):
        attempts.delay_after(Unavailable("x"))


def test_a_call_that_waits_in_a_queue_is_not_to_blame_for_lost_servers() -> None:
    attempts = Attempts(POLICY, Contact(), None, Clock())
    for _ in range(3 * POLICY.fruitless):
        attempts.answered(new=False, queued=True)
        attempts.delay_after(Unavailable("x"))
    # What it did before still counts.
    for _ in range(POLICY.fruitless):
        attempts.answered(new=False)
        attempts.delay_after(Unavailable("x"))
        attempts.answered(new=False, queued=True)
        attempts.delay_after(Unavailable("x"))
    attempts.answered(new=False)
    with pytest.raises(Unavailable):
        attempts.delay_after(Unavailable("x"))


def test_the_deadline_spans_all_attempts() -> None:
    clock = Clock()
    attempts = Attempts(POLICY, Contact(), 10.0, clock)
    assert attempts.remaining() == 10.0
    clock.now = 4.0
    assert attempts.remaining() == 6.0
    clock.now = 10.0
    with pytest.raises(DeadlineExceeded):
        attempts.remaining()


def test_an_answer_to_one_call_is_contact_for_all() -> None:
    contact, clock = Contact(), Clock()
    Attempts(POLICY, contact, None, clock).answered()
    other = Attempts(POLICY, contact, None, clock)
    other.delay_after(Unavailable("x"))
    clock.now = 30.0
    other.delay_after(Unavailable("x"))


def test_an_error_that_a_server_sent_is_contact() -> None:
    contact = Contact()
    Attempts(POLICY, contact, None, Clock()).delay_after(Unavailable("loading", request_id="abc"))
    assert contact.made


@dataclass
class Failed:
    """A call that failed on its way."""

    message: str
    status: grpc.StatusCode = grpc.StatusCode.INTERNAL

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        return self.message

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_stream_that_a_proxy_could_not_send_again_is_a_lost_server() -> None:
    """Envoy's words, when it loses a replica after more than its buffer has been sent."""
    found = decode_rpc_error(Failed("exceeded request buffer limit while retrying upstream"), "gramlet:50051")
    assert isinstance(found, Unavailable)
    assert isinstance(decode_rpc_error(Failed("a bug"), "gramlet:50051"), InternalError)


@pytest.mark.parametrize(
    ("message", "shows"),
    [
        ("Stream removed (Socket closed)", True),
        ("recvmsg:Connection reset by peer (104)", True),
        ("connections to all backends failing; last error: UNKNOWN: backend unhealthy", True),
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Socket closed", False),
        ("failed to connect to all addresses; last error: UNKNOWN: Connection refused (111)", False),
        ("no healthy upstream", False),
    ],
)
def test_a_server_whose_connection_broke_was_there(message: str, shows: bool) -> None:
    """It is waited for as long as one that had answered: a first call may send pictures for a while."""
    assert shows_a_server(Failed(message, grpc.StatusCode.UNAVAILABLE)) is shows
