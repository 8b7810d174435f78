"""The protocol of the sandbox: whatever a program in it does, whoever waits for its answers knows in time."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from readers.sandbox.child import (
    AnswerTooLargeError,
    Child,
    ChildBrokenError,
    ChildLimits,
    ChildNotStartedError,
    ChildTooSlowError,
)

PROGRAM = "tests.readers.breaking_program"
LIMITS = ChildLimits(memory_bytes=4 << 30, seconds=30, answer_bytes=1 << 20)
HASTY = ChildLimits(memory_bytes=4 << 30, seconds=1, answer_bytes=1 << 20)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An open file for the program."""
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as opened:
        yield opened.fileno()


def test_every_request_has_its_answers(file: int) -> None:
    expected = [("first", b"with bytes"), ({"second": [1, 2]}, b"")]
    with closing(Child(PROGRAM, LIMITS, file)) as child:
        assert [list(child.ask("echo")) for _ in range(3)] == [expected] * 3
        assert list(child.ask("nothing")) == []


@pytest.mark.parametrize(
    ("request_", "limits", "error"),
    [
        ("die", LIMITS, ChildBrokenError),
        ("hang", HASTY, ChildTooSlowError),
        ("drip", HASTY, ChildTooSlowError),
        ("boast", LIMITS, AnswerTooLargeError),
        ("babble", LIMITS, ChildBrokenError),
        ("nest", LIMITS, ChildBrokenError),
        ("eat", LIMITS, ChildBrokenError),
    ],
)
def test_a_program_that_breaks_is_known_to_be_broken_in_time(
    file: int, request_: str, limits: ChildLimits, error: type[ChildBrokenError]
) -> None:
    with closing(Child(PROGRAM, limits, file)) as child:
        assert list(child.ask("nothing")) == []
        started = time.monotonic()
        with pytest.raises(ChildBrokenError) as caught:
            list(child.ask(request_))
    assert type(caught.value) is error
    assert time.monotonic() - started < LIMITS.seconds


def test_a_program_that_is_none_does_not_start(file: int) -> None:
    with closing(Child("readers.no_such_program", LIMITS, file)) as child, pytest.raises(ChildNotStartedError):
        list(child.ask("echo"))


def test_a_closed_one_answers_nothing(file: int) -> None:
    child = Child(PROGRAM, LIMITS, file)
    assert list(child.ask("nothing")) == []
    child.close()
    with pytest.raises(ChildBrokenError):
        list(child.ask("echo"))
