"""The API as a real server: in a thread of this process, or in a process that can be made to die at a chosen step."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
