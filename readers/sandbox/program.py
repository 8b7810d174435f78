"""The inside of a confined process: limits, confinement, and then answers to requests until there are no more.

Both ways go frames: two lengths, JSON, bytes. The first frame that comes in says how much memory and time there is; the
first that goes out lists the layers of confinement that this system lacks. Then every request is answered by any number
of frames and a last one, `null`.

A program is a module with a function `answers(request)`, which yields JSON as text, and bytes. Its imports are done
before it is confined; it reads nothing hostile before its first request.
"""

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import IO, Any

from readers.sandbox.confinement import confine

FRAME = struct.Struct(">2Q")

Answers = Callable[[Any], Iterator[tuple[str, bytes]]]


def run(program: str) -> None:
    """Be the program that is the module `program`; requests come from standard input, answers go to standard output."""
    answers: Answers = import_module(program).answers
    requests, out = sys.stdin.buffer, sys.stdout.buffer
    limits = _read(requests)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"], limits["memory_bytes"]))
    _write(out, json.dumps(confine()))
    while (request := _read(requests)) is not None:
        _more_time(limits["seconds"])
        for text, content in answers(request):
            _write(out, text, content)
            _more_time(limits["seconds"])
        _write(out, "null")


def frame(text: str, content: bytes = b"") -> bytes:
    """What goes over a pipe: `text` is JSON."""
    raw = text.encode()
    return b"".join((FRAME.pack(len(raw), len(content)), raw, content))


def _read(requests: IO[bytes]) -> Any:
    """The next request, `None` when there is none. What comes from the parent is trusted."""
    head = requests.read(FRAME.size)
    return json.loads(requests.read(FRAME.unpack(head)[0])) if head else None


def _write(out: IO[bytes], text: str, content: bytes = b"") -> None:
    out.write(frame(text, content))
    out.flush()


def _more_time(seconds: int) -> None:
    """For the next answer, on all processors. Whoever waits for it has a clock of its own, and may die: this one then
    ends the work."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = seconds * (os.cpu_count() or 1)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + most + 1, hard))
