"""`python -m integrations [NAME]`: one service, and one fresh environment after another."""

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from ecif_client import Client
from integrations.frameworks import FRAMEWORKS, Framework
from standalone.errors import StandaloneError
from standalone.stack import Stack

ROOT = Path(__file__).parents[1]
PATIENCE = 600
"""Seconds that a step may take."""


class WrongError(Exception):
    """A step did not do what its page says."""


def _embeddings(pairs: int, wrong: int, seed: int) -> bytes:
    """A zip of `image.npy` and `text.npy`: pairs of 16 numbers, the first `wrong` of them with texts exchanged."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(pairs, 16)).astype(np.float32)
    text = image + 0.3 * generator.normal(size=image.shape).astype(np.float32)
    text[:wrong] = text[:wrong][::-1]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, matrix in (("image.npy", image), ("text.npy", text)):
            content = io.BytesIO()
            np.save(content, matrix)
            archive.writestr(name, content.getvalue())
    return packed.getvalue()


class Trial:
    """A framework in an environment of its own, in a folder that goes afterwards."""

    def __init__(self, framework: Framework, ecif: Client, folder: Path) -> None:
        self._framework = framework
        self._ecif = ecif
        self._folder = folder
        self._log = folder / "log"
        self._python = folder / "environment" / "bin" / "python"

    def install(self) -> None:
        """Make the environment: the framework as pinned, and the client of this checkout."""
        uv = str(Path(sys.executable).with_name("uv"))
        place = str(self._folder / "environment")
        self._call([uv, "venv", "--quiet", "--python", sys.executable, place])
        client = str(ROOT / "clients" / "python")
        into = ["--python", str(self._python)]
        self._call([uv, "pip", "install", "--quiet", *into, *self._framework.requirements, client])

    def run(self) -> None:
        """The step, undisturbed: it makes one job."""
        self._one_job(lambda: self._end(self._start("first", "whole")))

    def kill_and_retry(self) -> None:
        """The step, killed as soon as its job is there, and tried again as the framework does: it makes one job."""

        def killed() -> None:
            before = self._jobs()
            process = self._start("first", "killed")
            self._until(process, lambda: bool(self._jobs() - before))
            _kill(process)
            process.wait()
            self._end(self._start("again", "killed"))

        self._one_job(killed)

    def _one_job(self, what: Callable[[], None]) -> None:
        before = self._jobs()
        what()
        made = self._jobs() - before
        if len(made) != 1:
            raise WrongError(f"{len(made)} jobs were made in place of one: {', '.join(sorted(made))}")
        status = self._ecif.job(made.pop())["status"]
        if status != "succeeded":
            raise WrongError(f"the job is {status}")

    def _jobs(self) -> set[str]:
        return {job["id"] for job in self._ecif.jobs()}

    def _start(self, what: str, trial: str) -> "subprocess.Popen[bytes]":
        """`drive.py first` or `again`, in a folder that both share in this trial."""
        place = self._folder / trial
        place.mkdir(exist_ok=True)
        data = {"TRAIN": self._folder.parent / "train.zip", "CLEAN": self._folder.parent / "clean.zip"}
        bare = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        environment = {
            **bare,
            **{name: str(path) for name, path in data.items()},
            **dict(self._framework.environment),
            "HOME": str(place),
            "ECIF_URL": self._ecif.url,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self._python.parent}:{bare.get('PATH', os.defpath)}",
        }
        command = [str(self._python), str(self._framework.folder / "drive.py"), what]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _until(self, process: "subprocess.Popen[bytes]", there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            if process.poll() is not None:
                raise WrongError(f"it ended ({process.returncode}) before it could be killed\n{self._last_lines()}")
            if time.monotonic() > deadline:
                _kill(process)
                raise WrongError(f"no job after {PATIENCE} seconds\n{self._last_lines()}")
            time.sleep(0.05)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise WrongError(f"it takes longer than {PATIENCE} seconds\n{self._last_lines()}") from None
        if code:
            raise WrongError(f"it ended with {code}\n{self._last_lines()}")

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WrongError(f"{' '.join(command)}\n{done.stderr}")

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-60:])


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all below it with SIGKILL, which nothing can catch."""
    try:
        whole = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for one in whole:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


def _try(framework: Framework, ecif: Client, folder: Path) -> bool:
    """Whether it works; says what was done and how long each part took."""
    place = folder / framework.name
    place.mkdir()
    trial = Trial(framework, ecif, place)
    parts = (
        ("installed", trial.install),
        ("run: one job", trial.run),
        ("killed, tried again: one job", trial.kill_and_retry),
    )
    said: list[str] = []
    for name, part in parts:
        began = time.monotonic()
        try:
            part()
        except WrongError as error:
            _say(f"{framework.name}: FAILED after {'; '.join(said) or 'nothing'}: {error}")
            return False
        said.append(f"{name} ({time.monotonic() - began:.0f} s)")
    _say(f"{', '.join(framework.requirements)}: {'; '.join(said)}")
    return True


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(names: list[str]) -> int:
    """Try these, or all; the exit status."""
    known = [framework.name for framework in FRAMEWORKS]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(f"{unknown[0]!r} is none of {', '.join(known)}\n")
        return 2
    chosen = [framework for framework in FRAMEWORKS if not names or framework.name in names]
    with tempfile.TemporaryDirectory(prefix="ecif-integrations-") as temporary:
        folder = Path(temporary)
        (folder / "train.zip").write_bytes(_embeddings(400, wrong=40, seed=0))
        (folder / "clean.zip").write_bytes(_embeddings(800, wrong=0, seed=1))
        environment = {"OMP_NUM_THREADS": "1", "ECIF_DEVICE": "cpu"}
        try:
            with Stack(folder / "service", environment=environment) as stack, Client(stack.url) as ecif:
                _say(f"service at {stack.url}")
                worked = [_try(framework, ecif, folder) for framework in chosen]
        except StandaloneError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0 if all(worked) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
