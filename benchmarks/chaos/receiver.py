"""The receiver of webhooks: a server that checks every signature and remembers every notice."""

import json
import threading
from collections import defaultdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError


class Receiver:
    """A receiver on a free loopback port while the block lasts.

    Attributes:
        secret: what notices are signed with, after somebody has fetched it from the API.
        notices: by job, the ids of the notices that came with a signature that holds.
        forged: how many came with another.
    """

    def __init__(self) -> None:
        self.secret = ""
        self.notices: dict[str, set[str]] = defaultdict(set)
        self.forged = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/ended"

    def take(self, body: bytes, headers: dict[str, str]) -> bool:
        """Remember a notice; whether its signature holds."""
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            self.forged += 1
            return False
        self.notices[json.loads(body)["data"]["id"]].add(headers["webhook-id"])
        return True


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, receiver: Receiver, *connection: Any) -> None:
        self._receiver = receiver
        super().__init__(*connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(204 if self._receiver.take(body, headers) else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the verdict says what came."""
