"""Sources that drip: a fetch has a deadline and a least pace, at any point of a connection."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.errors import InvalidError
from worker.outbound import bounds
from worker.outbound.bounds import Pace
from worker.outbound.copying import fetch


@contextmanager
def dripping(opening: bytes) -> Iterator[str]:
    """A server that sends `opening`, then a byte every 20 ms."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(opening)
            try:
                while not ended.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/data.zip"
    finally:
        ended.set()
        thread.join()
        listening.close()


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
HEADER = b"HTTP/1.1 200 OK\r\nX-Drip: "


@pytest.mark.parametrize("opening", [BODY, HEADER], ids=["body", "header"])
def test_who_drips_is_given_up_at_the_deadline(tmp_path: Path, opening: bytes) -> None:
    began = time.monotonic()
    with dripping(opening) as uri, pytest.raises(InvalidError, match="was not copied within 1 seconds") as refused:
        fetch(uri, tmp_path / "x", most=10**9, pace=Pace(1.0, 0), private_too=True, progress=lambda *_: None)
    assert (refused.value.code, refused.value.param) == ("fetch_too_slow", "uri")
    assert time.monotonic() - began < 20


def test_who_sends_too_little_in_a_minute_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_WINDOW_SECONDS", 0.5)
    with dripping(BODY) as uri, pytest.raises(InvalidError, match="less than 1,000 a second") as refused:
        fetch(uri, tmp_path / "x", most=10**9, pace=Pace(60.0, 1000), private_too=True, progress=lambda *_: None)
    assert refused.value.code == "fetch_too_slow"


def test_who_is_as_fast_as_asked_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = Pace(3600, 1000)
    for minute in range(1, 50):
        now[0] = minute * 60.0
        kept.check(minute * 60_000)
    now[0] += 60
    with pytest.raises(InvalidError, match="0 bytes came in the last 60 seconds"):
        kept.check(49 * 60_000)
