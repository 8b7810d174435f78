"""What a child process that reads hostile files is given of this one's environment."""

import os
import sys

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "SYSTEMROOT")


def confined_environment() -> dict[str, str]:
    """Nothing of the worker's own: its database's password is no business of a reader of hostile files."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
