"""The client is a distribution of its own: it installs alone, on each Python that it names, and its command works."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.settings import Settings
from tests.service.serving import in_a_thread
from tests.service_fixtures import EmbeddingZip

_ROOT = Path(__file__).parents[2]
_CLIENT = _ROOT / "clients" / "python"
_UV = Path(sys.executable).parent / "uv"
_PROJECT = tomllib.loads((_CLIENT / "pyproject.toml").read_text())["project"]
PYTHONS = [
    name.rpartition(" ")[2] for name in _PROJECT["classifiers"] if name.startswith("Programming Language :: Python ::")
]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=240)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("the package index does not answer")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interpreter(version: str) -> Path | None:
    """A Python of this version that is on this machine and really runs."""
    asked_of_uv = subprocess.run(
        [_UV, "python", "find", "--no-python-downloads", "--no-project", version],
        capture_output=True,
        text=True,
        check=False,
    )
    places = [Path(asked_of_uv.stdout.strip())] if asked_of_uv.returncode == 0 else []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places += sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    return next((place for place in places if place.is_file()), None)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(
        _UV,
        "build",
        "--quiet",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        out,
        _CLIENT,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def service(settings: Settings) -> Iterator[str]:
    with in_a_thread(settings) as url:
        yield url


def test_the_pythons_that_it_names_begin_where_it_does() -> None:
    assert PYTHONS == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert _PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_alone_and_submits(
    version: str, wheel: Path, service: str, tmp_path: Path, embedding_zip: EmbeddingZip
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    bin_ = tmp_path / "venv" / "bin"
    pins = _ROOT / "requirements" / "dev.txt"
    run(_UV, "venv", "--quiet", "--no-project", "--python", python, tmp_path / "venv")
    run(_UV, "pip", "install", "--quiet", "--python", bin_ / "python", "--constraint", pins, wheel)
    assert run(bin_ / "ecif", "--version") == f"ecif, version {_PROJECT['version']}\n"
    (tmp_path / "train.zip").write_bytes(embedding_zip(20))
    assert run(bin_ / "ecif", "submit", tmp_path / "train.zip", "--url", service).startswith("job_")
