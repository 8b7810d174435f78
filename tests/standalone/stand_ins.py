"""`python -m standalone` with an API, a worker and a sweeper that are up at once and do nothing.

A worker that ignores SIGTERM stands for one that hangs: set STUBBORN. Run by the tests, not collected by them.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from standalone import __main__, services, stack
from standalone.child import Command
from standalone.home import Home
from standalone.serve import serve

_API = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""
_WORKER = """
import os, signal, subprocess, sys, time
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""
_SWEEPER = "import time; time.sleep(600)"


def _command(home: Home, environment: dict[str, str], name: str, program: str, *arguments: str) -> Command:
    argv = (sys.executable, "-c", program, *arguments)
    return Command(name=name, argv=argv, environment=environment, log=home.log(name), grace_seconds=1)


def _api(home: Home, environment: dict[str, str], port: int) -> Command:
    return _command(home, environment, "api", _API, str(port))


def _worker(home: Home, environment: dict[str, str], _node: str, _processes: int, name: str, _lanes: str) -> Command:
    (home.path / "environment").write_text("\n".join(f"{name}={value}" for name, value in environment.items()))
    return _command(home, environment, name, os.environ.get("WORKER_PROGRAM", _WORKER))


def _sweeper(home: Home, environment: dict[str, str]) -> Command:
    return _command(home, environment, "sweeper", _SWEEPER)


def _is_up(*_: Any) -> bool:
    return "WORKER_PROGRAM" not in os.environ


class _Remembering(stack.Stack):
    """Writes down who runs, for the test to find."""

    def wait_until_up(self) -> None:
        super().wait_until_up()
        running = [f"{name} {child.pid}" for name, child in self.processes.items()]
        (self.home.path / "running").write_text("\n".join(running))


def main() -> int:
    stood_in: dict[str, Callable[..., Any]] = {
        "api": _api,
        "worker": _worker,
        "sweeper": _sweeper,
        "worker_is_up": _is_up,
    }
    for name, function in stood_in.items():
        setattr(services, name, function)
    serve.__globals__["Stack"] = _Remembering
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
