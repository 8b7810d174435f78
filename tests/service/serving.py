"""The API as a real server: in a thread of this process, or in a process that can be made to die at a chosen step."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from service.app import create_app
from store.settings import Settings


@contextmanager
def in_a_thread(settings: Settings) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", log_config=None))
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


_DYING = """
import importlib, os, sys, uvicorn
import store.settings
store.settings.keep_memory_private = lambda: None  # tests measure it, be they root or not
module, name = sys.argv[2].rsplit(".", 1)
holder = importlib.import_module("doorbell.bell").Bell if module.endswith("Bell") else importlib.import_module(module)
def die(*_args, **_kwargs): os._exit(9)
if name != "nothing": setattr(holder, name, die)
uvicorn.run("service.app:create_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def in_a_process(
    settings: Settings, dies_in: str = "os.nothing", folder: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`dies_in` names a function: calling it ends the process as `kill -9` would. It starts in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {name.upper(): str(value) for name, value in settings.model_dump().items()}
    process = subprocess.Popen([sys.executable, "-c", _DYING, str(port), dies_in], env=environment, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait()


class Watch:
    """What a process does to others while it works: how long `/healthz` waited at most, and how its memory grew."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.slowest = 0.0  # seconds
        self.looks = 0
        self._url, self._pid = url, process.pid
        self._before = self._peak = self._resident()

    @property
    def grown(self) -> int:
        """Bytes of memory at most beyond those at the beginning."""
        return self._peak - self._before

    def _resident(self) -> int:
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def look(self, over: threading.Event) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            while not over.wait(0.02):
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.slowest = max(self.slowest, time.monotonic() - began)
                self._peak = max(self._peak, self._resident())
                self.looks += 1


@contextmanager
def watched(url: str, process: "subprocess.Popen[bytes]") -> Iterator[Watch]:
    """Watch a server while the block lasts."""
    watch, over = Watch(url, process), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(watch.look, over)
        try:
            yield watch
        finally:
            over.set()
        looking.result()
