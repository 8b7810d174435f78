"""A way to a server whose connections break after so many bytes."""

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit

_NEVER = 1 << 60


class Cutting:
    """Passes on what comes, 16 KiB at a time with a `pause` before each. Of the first `connections` each is broken when
    so many bytes went `up` or came `down`."""

    def __init__(
        self, server: str, up: int = _NEVER, down: int = _NEVER, connections: int = 1, pause: float = 0
    ) -> None:
        self._pause = pause
        self._to = (urlsplit(server).hostname, urlsplit(server).port)
        self._limits = {"up": up, "down": down}
        self._to_break = connections
        self.passed = {"up": 0, "down": 0}
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                limits = self._limits if self._to_break > 0 else {}
                self._to_break -= 1
                self._threads.append(threading.Thread(target=self._connect, args=(near, limits)))
                self._threads[-1].start()

    def _connect(self, near: socket.socket, limits: dict[str, int]) -> None:
        with near, socket.create_connection(self._to) as far:
            up = threading.Thread(target=self._pass, args=("up", near, far, limits.get("up", _NEVER)))
            up.start()
            self._pass("down", far, near, limits.get("down", _NEVER))
            up.join()

    def _pass(self, way: str, source: socket.socket, target: socket.socket, rest: int) -> None:
        with contextlib.suppress(OSError):
            while rest > 0 and (chunk := source.recv(min(rest, 1 << 14))):
                time.sleep(self._pause)
                target.sendall(chunk)
                self.passed[way] += len(chunk)
                rest -= len(chunk)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
