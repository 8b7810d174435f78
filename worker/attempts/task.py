"""What a step is given and what it gives back. A step computes; whoever called it records."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.shards import Claim
from worker.attempts.lease import Lease
from worker.attempts.memory import Peak
from worker.outputs import Json, Output

O_co = TypeVar("O_co", bound=Output, covariant=True)


@dataclass(frozen=True)
class Task:
    """One attempt at one shard."""

    claim: Claim
    lease: Lease
    database: Database
    blobs: Blobs
    settings: Settings
    save_checkpoint: Callable[[Json], None]

    def blob_name(self, name: str) -> str:
        """A name for what this attempt writes. No other attempt writes to it, so a late one can do no harm."""
        return f"{self.claim.owner.folder}/{self._of_attempt(self.claim.attempt)}/{name}"

    def passing_name(self, name: str) -> str:
        """As `blob_name`, of what later phases need, and nobody after them."""
        return f"{self.claim.owner.passing_folder}/{self._of_attempt(self.claim.attempt)}/{name}"

    def forget_earlier_attempts(self) -> None:
        """Delete what earlier attempts at this shard have left under `blob_name`."""
        for attempt in range(1, self.claim.attempt):
            self.blobs.delete_prefix(f"{self.claim.owner.folder}/{self._of_attempt(attempt)}")

    def _of_attempt(self, attempt: int) -> str:
        round_ = f".{self.claim.round}" if self.claim.round else ""
        return f"{self.claim.phase}{round_}-{self.claim.index}.{attempt}"

    def kept_bytes(self) -> int:
        """How much this attempt has put under its owner and leaves there; its `blobs` are a counted view."""
        lasting, passing = f"{self.claim.owner.folder}/", f"{self.claim.owner.passing_folder}/"
        written = self.blobs.written or {}
        return sum(size for name, size in written.items() if name.startswith(lasting) and not name.startswith(passing))


def _nothing(_: Session) -> None:
    return


@dataclass(frozen=True)
class Done(Generic[O_co]):
    """What a step made: `output` for the phases after it, and what to write in the transaction that ends it, with the
    shard's row held. `before_locks` runs in that transaction too, before any row is held: whoever needs a lock that
    others take before rows takes it there. What takes long is written by the step itself, in a transaction that ends
    with `shards.fence`. `kept_bytes` are left in blobs of the owner, and `peak` is the most memory that it took.
    """

    output: O_co
    units: int = 0
    write: Callable[[Session], None] = _nothing
    before_locks: Callable[[Session], None] = _nothing
    kept_bytes: int = 0
    peak: Peak = field(default_factory=Peak)
