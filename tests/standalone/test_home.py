"""The data folder."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from standalone.errors import HomeInUseError
from standalone.home import Home


def test_a_password_is_drawn_once_and_private(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert home.password("redis") == Home.at(tmp_path).password("redis")
    assert home.password("redis") != home.password("postgres")
    assert (tmp_path / "redis.password").stat().st_mode & 0o777 == 0o600


def test_other_users_see_nothing_of_what_is_kept(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    assert home.path.stat().st_mode & 0o066 == 0
    for folder in (home.redis, home.blobs, home.log("api").parent):
        assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_lets_one_owner_in_at_a_time(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    with home.locked("serve"):
        with pytest.raises(HomeInUseError, match=f"process {os.getpid()}"), home.locked("serve"):
            pass
        with home.locked("other"):
            pass
    with home.locked("serve"):
        pass


def test_the_lock_of_an_owner_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    # What the guard does: it holds the lock a little longer than its owner lives.
    home = Home.at(tmp_path)
    holder = (
        "import fcntl, os, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
        "file.write('process 999999999'); file.flush(); print('held', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path / "serve.lock"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with home.locked("serve") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
