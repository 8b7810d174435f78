"""What a child process that reads hostile files may do: read libraries and the descriptors that it was given.

Several layers, each for itself, because no kernel is sure to have them all. Without one the child still runs, and its
parent says in its log what is missing (docs/decisions/0021-hostile-files.md).
"""

import ctypes
import errno
import logging
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "SYSTEMROOT")
# Landlock binds the thread that asks for it and those that it starts: imports must not start any.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime")
_NOBODY = 65534

_NO_NEW_PRIVILEGES, _SET_DUMPABLE = 38, 4  # prctl(2)

# landlock(7); these numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = 1 << 2 | 1 << 3  # files, folders
_ALL_OF_FILES = ((5, 16), (3, 15), (2, 14), (1, 13))  # the first version of Landlock with so many rights
_TCP, _TCP_SINCE = 0b11, 4  # bind, connect
_SCOPES, _SCOPES_SINCE = 0b11, 6  # abstract sockets, signals

# seccomp(2): the machine's number, that of seccomp itself, and those of the system calls that are refused.
# In this order: socket execve execveat ptrace process_vm_readv process_vm_writev kill bpf open_by_handle_at mount
# unshare setns add_key request_key keyctl perf_event_open userfaultfd io_uring_setup pidfd_open pidfd_getfd
_MACHINES = {
    "x86_64": (0xC000003E, 317, "41 59 322 101 310 311 62 321 304 165 272 308 248 249 250 298 323 425 434 438"),
    "aarch64": (0xC00000B7, 277, "198 221 281 117 270 271 129 280 265 40 97 268 217 218 219 241 282 425 434 438"),
}
_OTHER_NUMBERS = 0x40000000  # from here on, x86-64 has every call a second time
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _END_PROCESS, _NOT_PERMITTED = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM


def confined_environment() -> dict[str, str]:
    """The environment of such a child, which is not that of its parent: a database's password is no business of it."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def confine() -> list[str]:
    """Give up what a reader of hostile files has no use for. Call it after the imports, before reading, in the only
    thread. Returns the layers that this system lacks.
    """
    layers = {
        "Landlock": _restrict_files_and_tcp,
        "a user of their own": _leave_root,  # to whom a folder on the way to the libraries may be closed
        "private memory": _keep_memory_private,
        "seccomp": _refuse_system_calls,
    }
    missing = []
    for name, layer in layers.items():
        try:
            layer()
        except (OSError, AttributeError, KeyError):
            missing.append(name)
    return missing


@cache
def warn_of_missing(*layers: str) -> None:
    """Say once in a process's log what its confined children run without."""
    if layers:
        logger.warning("decoders of uploads run without %s, which this system does not grant", ", ".join(layers))


def _leave_root() -> None:
    """Become nobody where this is root. That gives up every capability, too."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _restrict_files_and_tcp() -> None:
    """Reading libraries is all that is left of the file system; no TCP, no signals to others, as far as there is."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    version = _call(_CREATE_RULESET, None, 0, 1)
    rights = next(count for since, count in _ALL_OF_FILES if version >= since)
    attributes = [(1 << rights) - 1]
    attributes += [_TCP] if version >= _TCP_SINCE else []
    attributes += [_SCOPES] if version >= _SCOPES_SINCE else []
    content = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _call(_CREATE_RULESET, content, len(content), 0)
    try:
        for path in _libraries():
            _allow_reading(ruleset, path)
        _no_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    if threads > 1:
        raise OSError(f"{threads - 1} other threads of this process are not restricted")


def _libraries() -> Iterator[Path]:
    """Where a module or a shared library that is needed late may be looked for."""
    ours = Path(__file__).parents[1]
    names = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from (path for name in (*names, *_SYSTEM_LIBRARIES) if (path := Path(name)).exists())
    yield ours


def _allow_reading(ruleset: int, path: Path) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ if path.is_dir() else 1 << 2
        _call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def _refuse_system_calls() -> None:
    """No socket, no other program, no look at other processes; the same for threads that there are already."""
    machine, seccomp, numbers = _MACHINES[platform.machine()]
    refused = [int(number) for number in numbers.split()]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _END_PROCESS), (_LOAD, 0, 0, 0)]
    tests = [(_EQUAL, number) for number in refused] + [(_AT_LEAST, _OTHER_NUMBERS)]
    steps += [(code, len(tests) - at, 0, number) for at, (code, number) in enumerate(tests)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOT_PERMITTED)]
    content = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    _no_new_privileges()
    _call(seccomp, 1, 1, struct.pack("@HP", len(steps), ctypes.addressof(content)))


def _keep_memory_private() -> None:
    """No other process of this user reads this one's memory or traces it, and it leaves no core."""
    if sys.platform == "linux" and _libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _no_new_privileges() -> None:
    if _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _call(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library has no name for.

    Raises:
        OSError: the kernel lacks it or refuses.
    """
    passed: Sequence[object] = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = int(_libc().syscall(ctypes.c_long(number), *passed))
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return answer


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
