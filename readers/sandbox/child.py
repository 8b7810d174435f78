"""A confined process that reads hostile bytes, as its parent sees it, which may not die of them. Its inside: `program`.

It has read what a stranger wrote, so nothing that it says is taken on trust: every answer has a greatest length and a
time by which it is whole.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from readers.sandbox.confinement import confined_environment, warn_of_missing
from readers.sandbox.program import FRAME, frame

_PROGRAM = "import sys; from readers.sandbox.program import run; run(sys.argv[1])"
_START_SECONDS = 120
_PIPE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What a process may ask for."""

    memory_bytes: int
    """address space"""
    seconds: int
    """for one answer, of the clock and of the processor"""
    answer_bytes: int


class ChildNotStartedError(Exception):
    """The program does not even begin: no fault of what it would have read."""


class ChildBrokenError(Exception):
    """The process is no good any more: it died, or said what makes no sense."""


class ChildTooSlowError(ChildBrokenError):
    """An answer was not there in time."""


class AnswerTooLargeError(ChildBrokenError):
    """An answer announces more bytes than it may have."""


class Child:
    """A process that runs the module `program`, which has no open file but `file`. It starts immediately.

    For one thread at a time; only `close` may come from another, and whoever waits for an answer then finds it broken.
    After an error it is good for nothing but to be closed.
    """

    def __init__(self, program: str, limits: ChildLimits, file: int) -> None:
        self._program, self._limits = program, limits
        self._received = bytearray()
        self._ready = False
        self._process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-c", _PROGRAM, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(file,),
            env=confined_environment(),
        )

    def ask(self, request: object) -> Iterator[tuple[Any, bytes]]:
        """The answers to a request, JSON and bytes each. They are read to their end before the next request.

        Raises:
            ChildNotStartedError: there is no such process to be had.
            ChildBrokenError: or one of its kinds.
        """
        if not self._ready:
            self._start()
        self._send(request)
        while (answer := self._answer(self._limits.seconds))[0] is not None:
            yield answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _start(self) -> None:
        try:
            self._send({"memory_bytes": self._limits.memory_bytes, "seconds": self._limits.seconds})
            missing, _ = self._answer(_START_SECONDS)
        except ChildBrokenError as error:
            raise ChildNotStartedError(f"{self._program} does not start: {error}") from None
        warn_of_missing(*missing)
        self._ready = True

    def _send(self, words: object) -> None:
        assert self._process.stdin is not None  # noqa: S101
        content = frame(json.dumps(words))
        with suppress(BrokenPipeError, ValueError):  # it has died or was closed: there will be no answer
            self._process.stdin.write(content)

    def _answer(self, seconds: float) -> tuple[Any, bytes]:
        until = time.monotonic() + seconds
        text_length, length = FRAME.unpack(self._take(FRAME.size, until))
        if text_length + length > self._limits.answer_bytes:
            raise AnswerTooLargeError(f"an answer of {text_length + length} bytes")
        text, content = self._take(text_length, until), self._take(length, until)
        try:
            return json.loads(text), content
        except (ValueError, RecursionError) as error:
            raise ChildBrokenError("it said what is not JSON") from error

    def _take(self, count: int, until: float) -> bytes:
        while len(self._received) < count:
            self._received += self._read(until)
        with memoryview(self._received) as received:
            taken = received[:count].tobytes()
        del self._received[:count]
        return taken

    def _read(self, until: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        try:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ChildTooSlowError(f"no answer within {self._limits.seconds} s")
            more = os.read(self._process.stdout.fileno(), _PIPE_BYTES)
        except ValueError:  # it was closed by another thread
            more = b""
        if not more:
            raise ChildBrokenError("it died")
        return more
