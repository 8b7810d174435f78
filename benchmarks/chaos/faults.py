"""What can go wrong, each fault with what it hits and when its effect is over; and how long each is felt."""

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import redis

from benchmarks.chaos.link import Link
from benchmarks.chaos.records import Held, Records
from benchmarks.chaos.world import World, kill_process, signal_process

_WAIT_FOR_A_BUSY_CHILD_SECONDS = 5.0
_HELD_SECONDS = 6.0
_SLOW_SECONDS = 6.0
_FROZEN_SECONDS = 45.0
"""Longer than a lease: what a frozen process held is another's when it goes on."""
_WAIT_FOR_A_COPY_SECONDS = 10.0
_DELAYS = {"redis": 0.3, "postgres": 0.02}  # each way, for every message of many in a transaction


@dataclass
class Fault:
    """One fault as it was inflicted. `back` says whether what was hit answers again."""

    kind: str
    hit: str
    at: float  # epoch seconds
    lost: Sequence[Held] = ()
    back: Callable[[], bool] = field(default=lambda: True, repr=False)
    recovered_after: float | None = None
    number: int = 0

    def __str__(self) -> str:
        return f"{self.number} {self.kind}"


class Faults:
    """Inflicts faults on a world. Each kind is a method of the same name, `-` for `_`."""

    KINDS = (
        "kill-pool-child",
        "kill-in-copy",
        "freeze-pool-child",
        "kill-worker",
        "kill-api",
        "kill-sweeper",
        "kill-redis",
        "flush-redis",
        "flush-and-kill-redis",
        "slow-redis",
        "hold-redis",
        "cut-redis",
        "slow-postgres",
        "hold-postgres",
        "cut-postgres",
        "kill-postgres",
        "fill-disk",
    )

    def __init__(self, world: World, records: Records, draw: random.Random) -> None:
        self._world = world
        self._records = records
        self._draw = draw
        self._timers: list[threading.Timer] = []
        self._frozen: set[int] = set()

    def inflict(self, kind: str) -> Fault:
        """Do it now."""
        return getattr(self, kind.replace("-", "_"))()  # type: ignore[no-any-return]

    def end(self) -> None:
        """Bring every link back now."""
        for timer in self._timers:
            timer.cancel()
        for link in (self._world.redis_link, self._world.postgres_link):
            link.slow(0)
            link.release()
        for pid in self._frozen:
            signal_process(pid, signal.SIGCONT)
        self._world.empty_disk()

    def kill_pool_child(self) -> Fault:
        lost, at = self._busy(), time.time()
        if lost is None:
            return Fault("kill-pool-child", "nobody: no process held a shard", at)
        kill_process(lost.pid)
        return Fault("kill-pool-child", f"process {lost.pid}, at work on shard {lost.shard}", at, [lost])

    def freeze_pool_child(self) -> Fault:
        lost, at = self._busy(), time.time()
        if lost is None:
            return Fault("freeze-pool-child", "nobody: no process held a shard", at)
        signal_process(lost.pid, signal.SIGSTOP)
        self._frozen.add(lost.pid)
        self._after(_FROZEN_SECONDS, lambda: signal_process(lost.pid, signal.SIGCONT))
        hit = f"process {lost.pid}, at work on shard {lost.shard}, for {_FROZEN_SECONDS:g} s"
        return Fault("freeze-pool-child", hit, at, [lost])

    def kill_in_copy(self) -> Fault:
        with self._world.copies_held():
            deadline = time.monotonic() + _WAIT_FOR_A_COPY_SECONDS
            while (pid := self._records.copying()) is None and time.monotonic() < deadline:
                time.sleep(0.01)
            at = time.time()
            if pid is None:
                return Fault("kill-in-copy", "nobody: no process copied results", at)
            lost = [held for held in self._records.held() if held.pid == pid]
            kill_process(pid)
        return Fault("kill-in-copy", f"process {pid}, in the middle of a COPY", at, lost)

    def _busy(self) -> Held | None:
        deadline = time.monotonic() + _WAIT_FOR_A_BUSY_CHILD_SECONDS
        while not (held := self._records.held()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._draw.choice(held) if held else None

    def kill_worker(self) -> Fault:
        at, lost = time.time(), self._records.held()
        pid = self._world.kill("worker")
        return Fault(
            "kill-worker", f"process {pid} and its pool, {_shards(lost)}", at, lost, self._another("worker", pid)
        )

    def kill_api(self) -> Fault:
        at, pid = time.time(), self._world.kill("api")
        return Fault("kill-api", f"process {pid}", at, (), self._answers)

    def kill_sweeper(self) -> Fault:
        at, pid = time.time(), self._world.kill("sweeper")
        return Fault("kill-sweeper", f"process {pid}", at, (), self._another("sweeper", pid))

    def kill_redis(self) -> Fault:
        at, pid = time.time(), self._world.kill("redis")
        return Fault("kill-redis", f"process {pid}", at, (), self._another("redis", pid))

    def kill_postgres(self) -> Fault:
        at, lost = time.time(), self._records.held()
        pid = self._world.kill("postgres")
        return Fault("kill-postgres", f"process {pid}, {_shards(lost)}", at, lost, self._another("postgres", pid))

    def fill_disk(self) -> Fault:
        at = time.time()
        if not self._world.fill_disk():
            return Fault("fill-disk", "nothing: no small file system can be mounted here", at)
        self._after(_HELD_SECONDS, self._world.empty_disk)
        return Fault("fill-disk", f"no room for blobs for {_HELD_SECONDS:g} s", at)

    def flush_redis(self) -> Fault:
        at = time.time()
        return Fault("flush-redis", f"{self._flush()} keys, queued messages among them", at)

    def flush_and_kill_redis(self) -> Fault:
        at, keys = time.time(), self._flush()
        killed = self.kill_redis()
        return Fault("flush-and-kill-redis", f"{keys} keys and {killed.hit}", at, (), killed.back)

    def slow_redis(self) -> Fault:
        return self._slow("redis", self._world.redis_link)

    def slow_postgres(self) -> Fault:
        return self._slow("postgres", self._world.postgres_link)

    def hold_redis(self) -> Fault:
        return self._hold("redis", self._world.redis_link)

    def hold_postgres(self) -> Fault:
        return self._hold("postgres", self._world.postgres_link)

    def cut_redis(self) -> Fault:
        at = time.time()
        self._world.redis_link.cut()
        return Fault("cut-redis", "every connection to Redis reset", at)

    def cut_postgres(self) -> Fault:
        at, lost = time.time(), self._records.held()
        self._world.postgres_link.cut()
        return Fault("cut-postgres", f"every connection to PostgreSQL reset, {_shards(lost)}", at)

    def _slow(self, name: str, link: Link) -> Fault:
        at = time.time()
        link.slow(_DELAYS[name])
        self._after(_SLOW_SECONDS, lambda: link.slow(0))
        return Fault(f"slow-{name}", f"{_DELAYS[name] * 1000:g} ms more each way for {_SLOW_SECONDS:g} s", at)

    def _hold(self, name: str, link: Link) -> Fault:
        at = time.time()
        link.hold()
        self._after(_HELD_SECONDS, link.release)
        return Fault(f"hold-{name}", f"a black hole for {_HELD_SECONDS:g} s", at)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, then)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _flush(self) -> int:
        # Past the link, and Redis may be away from an earlier fault: then there is nothing to flush.
        try:
            with redis.Redis.from_url(self._world.redis_url, socket_timeout=2) as connection:
                keys = connection.dbsize()
                connection.flushall()
                return int(keys)
        except redis.RedisError:
            return 0

    def _another(self, name: str, pid: int) -> Callable[[], bool]:
        return lambda: self._world.pid(name) != pid

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._world.stack.url}/healthz", timeout=1, trust_env=False).is_success
        except httpx.TransportError:
            return False


def _shards(held: Sequence[Held]) -> str:
    return f"at work on {len(held)} shard{'' if len(held) == 1 else 's'}"


def drawn(number: int, draw: random.Random) -> list[str]:
    """`number` kinds in random order, each about equally often."""
    bags = [draw.sample(Faults.KINDS, len(Faults.KINDS)) for _ in range(number // len(Faults.KINDS) + 1)]
    return [kind for bag in bags for kind in bag][:number]


_POLL_SECONDS = 0.1


class Watch:
    """A thread that looks until every fault that it follows is over: what was hit is back, its shards are resumed, and
    work goes on. `say` gets a line for each."""

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
        return fault.back() and self._records.resumed(fault.lost) and self._records.moved_since(fault.at)
