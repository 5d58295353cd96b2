"""What model servers say when they fail, however odd it is."""

import pytest

from adlatus.backends import faults

DEEP = b"[" * 600 + b"]" * 600


@pytest.mark.parametrize("body", [b'{"error":{"message":%b}}' % DEEP, b'{"detail":%b}' % DEEP, DEEP])
def test_what_is_nested_too_deep_to_be_written_is_not_shown(body: bytes) -> None:
    assert faults.read(body).said == "something nested too deep to be shown"


def test_marks_are_words_and_numbers_only() -> None:
    assert faults.read(b'{"error":{"message":"x","code":%b,"type":429}}' % DEEP).marks == {"429"}


def test_a_fault_in_a_list_is_read() -> None:
    """As Gemini sends them."""
    fault = faults.read(b'[{"error":{"code":429,"message":"Slow down. Please retry in 1.5s.","status":"EXHAUSTED"}}]')
    assert (fault.said, fault.code, fault.asked_wait_s) == (
        "Slow down. Please retry in 1.5s.",
        "rate_limit_exceeded",
        1.5,
    )
