"""Starting again what died, with a pause that grows while it keeps dying."""

import signal
import threading
import time
from collections.abc import Callable, Sequence

from standalone.child import Child
from standalone.errors import StandaloneError

_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_WELL_SECONDS = 10.0
"""Whatever ran for so long did not die of how it was started: it is started again without much of a pause."""


class Supervision:
    """A thread that watches children which should be running. `say` gets one line for each that died."""

    def __init__(self, children: Sequence[Child], say: Callable[[str], None]) -> None:
        self._children = children
        self._say = say
        self._deaths = {child.name: 0 for child in children}
        self._started_at: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Start nothing from now on."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            for child in self._children:
                # A child that somebody is stopping or starting at this moment is theirs: look again next time.
                if child.lock.acquire(blocking=False):
                    try:
                        self._look_at(child)
                    finally:
                        child.lock.release()

    def _look_at(self, child: Child) -> None:
        if not child.wanted or child.alive:
            self._due.pop(child.name, None)
            return
        now = time.monotonic()
        due = self._due.get(child.name)
        if due is None:
            self._died(child, now)
        elif now >= due:
            del self._due[child.name]
            self._started_at[child.name] = now
            try:
                child.start()
            except (OSError, StandaloneError) as error:
                self._say(f"{child.name} could not be started: {error}")

    def _died(self, child: Child, now: float) -> None:
        if now - self._started_at.get(child.name, now) > _WELL_SECONDS:
            self._deaths[child.name] = 0
        pause = pause_after(self._deaths[child.name])
        self._deaths[child.name] += 1
        self._due[child.name] = now + pause
        how = _how(child.returncode)
        child.clear()
        self._say(f"{child.name} {how}: starting it again in {pause:g} s; its log is {child.command.log}")


def pause_after(deaths: int) -> float:
    """Seconds to wait before the next start, after so many deaths in a row before this one."""
    return min(_FIRST_PAUSE_SECONDS * (1 << min(deaths, 20)), _LONGEST_PAUSE_SECONDS)


def _how(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with status {returncode}"
