"""How long each fault is felt: until what it hit is back, its shards are taken up, and work goes on."""

import threading
import time
from collections.abc import Callable

from chaos.faults import Fault
from chaos.records import Records

_POLL_SECONDS = 0.1


class Watch:
    """A thread that looks until every fault it was told of is over. `say` gets a line for each."""

    def __init__(self, database_url: str, say: Callable[[str], None]) -> None:
        self._say = say
        self._open: list[Fault] = []
        self._ended = threading.Event()
        self._records = Records(database_url)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def follow(self, fault: Fault) -> None:
        self._open.append(fault)

    @property
    def quiet(self) -> bool:
        """Whether every fault is over."""
        return not self._open

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._records.close()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            for fault in list(self._open):
                if self._over(fault):
                    fault.recovered_after = time.time() - fault.at
                    self._open.remove(fault)
                    self._say(f"{fault}: work went on after {fault.recovered_after:.1f} s")

    def _over(self, fault: Fault) -> bool:
        return fault.back() and self._records.taken_up(fault.lost) and self._records.moved_since(fault.at)
