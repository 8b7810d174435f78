"""A receiver of notices: a real HTTP server in a thread of this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Answers with the next of `statuses`, and then with 204. `url` has a query that is a secret."""

    def __init__(self, port: int) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.meanwhile: Callable[[], object] = lambda: None
        self.url = f"http://127.0.0.1:{port}/hook?token=s3cret"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, mine: list[Receiver], *arguments: Any) -> None:
        self.mine = mine[0]
        super().__init__(*arguments)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.mine.received.append(
            Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        self.mine.meanwhile()
        self.send_response(self.mine.statuses.pop(0) if self.mine.statuses else 204)
        for name, value in self.mine.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiver() -> Iterator[Receiver]:
    mine: list[Receiver] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, mine))
    server.daemon_threads = True
    server.block_on_close = False
    mine.append(Receiver(server.server_port))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield mine[0]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
