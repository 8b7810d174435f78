"""A real API and a real worker, each a process of its own in folders that are watched."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from store.settings import Settings
from tests.service.serving import in_a_process

_WORKER = """
import sys
import store.settings
store.settings.keep_memory_private = lambda: None  # tests measure it, be they root or not
from store.blobs import Blobs
from store.database import Database
from store.settings import get_settings
from worker.attempts.attempt import Workplace, work_once
settings = get_settings()
place = Workplace(settings, Database.from_settings(settings), Blobs.from_settings(settings))
for _ in sys.stdin:
    while work_once(place) is not None: pass
    print("done", flush=True)
"""


class Peak:
    """The most memory that a process held since `begin`, beyond what it held then."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._before = 0

    def begin(self) -> None:
        (self._folder / "clear_refs").write_text("5")
        self._before = self._kib("VmHWM")

    def mib(self) -> float:
        return (self._kib("VmHWM") - self._before) / 1024

    def _kib(self, name: str) -> int:
        (line,) = (line for line in (self._folder / "status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])


@dataclass
class World:
    """client: of the API. root: everything that could be written to, but the database. aim: a path in it, outside of
    the blobs, that exists."""

    client: httpx.Client
    root: Path
    aim: Path
    api: Peak
    worker: Peak
    _process: "subprocess.Popen[str]"

    def work(self) -> None:
        """Have the worker do everything that there is to do."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", "the worker died"

    def files(self) -> dict[str, int]:
        """Every file with its size."""
        return {
            str(path.relative_to(self.root)): path.stat().st_size for path in self.root.rglob("*") if path.is_file()
        }


@pytest.fixture(scope="module")
def world(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    inside, temporary, aim = root / "a" / "b" / "c", root / "tmp", root / "canary.png"
    inside.mkdir(parents=True)
    temporary.mkdir()
    aim.write_bytes(b"sings")
    settings = Settings(
        ecif_home=root / "a" / "home",
        database_url=new_database(),
        redis_url="redis://127.0.0.1:1/0",
        ecif_max_upload_bytes=300 << 20,
        ecif_device="cpu",
    )
    environment = os.environ | {name.upper(): str(value) for name, value in settings.model_dump().items()}
    command = [sys.executable, "-c", _WORKER]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            command,
            env=environment | {"TMPDIR": str(temporary)},
            cwd=inside,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        patch.setenv("TMPDIR", str(temporary))
        assert tempfile.gettempdir() != str(temporary)  # ours stays where it was
        try:
            with (
                in_a_process(settings, folder=inside) as (url, api),
                httpx.Client(base_url=url, timeout=120, trust_env=False) as client,
            ):
                yield World(client, root, aim, Peak(api.pid), Peak(process.pid), process)
        finally:
            process.kill()
