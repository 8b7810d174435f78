"""What was promised against what is there."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.clients import Client, Crowd, Order
from benchmarks.chaos.faults import Fault
from benchmarks.chaos.receiver import Receiver
from benchmarks.chaos.records import Records


@dataclass(frozen=True)
class Outcome:
    """How one job ended, and what of it can be read."""

    status: str
    expected: int
    keys: Sequence[str]
    digest: str

    @property
    def missing(self) -> int:
        return self.expected - len(set(self.keys))

    @property
    def duplicates(self) -> int:
        return len(self.keys) - len(set(self.keys))


def outcome(client: Client, job_id: str) -> Outcome:
    """A job and its results, as a user reads them."""
    job = client.ask("GET", f"/jobs/{job_id}").json()
    rows = list(client.rows(job_id)) if job["status"] == "succeeded" else []
    expected = job["summary"]["counts"]["scored"] if job["summary"] else 0
    return Outcome(job["status"], expected, [row["key"] for row in rows], _digest(rows))


def _digest(rows: Iterable[dict[str, Any]]) -> str:
    """Of every number to its last bit: JSON writes the shortest text that reads back as the same double."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """How many jobs and datasets there are."""

    jobs: int
    datasets: int

    @classmethod
    def counted(cls, records: Records) -> "Rows":
        return cls(records.count("jobs"), records.count("datasets"))


@dataclass(frozen=True)
class Verdict:
    """The final table. `broken` names the promises that were not kept."""

    requested: int
    refused: Sequence[str]
    accepted: int
    ended: int
    succeeded: int
    new_jobs: int
    datasets_off: int
    missing_rows: int
    duplicate_rows: int
    equal: int
    lost_undisturbed: int
    notified: int
    notified_wrongly: int
    faults: Sequence[Fault]
    leaks: Sequence[str]
    allowed_seconds: float

    @property
    def longest(self) -> Fault | None:
        over = [fault for fault in self.faults if fault.recovered_after is not None]
        return max(over, key=lambda fault: fault.recovered_after or 0, default=None)

    @property
    def broken(self) -> list[str]:
        longest = self.longest.recovered_after or 0 if self.longest else 0
        checks = {
            "every request is accepted in the end": self.accepted == self.requested and not self.refused,
            "every accepted job ends": self.ended == self.accepted,
            "no job fails for a fault of ours": self.succeeded == self.ended,
            "one key makes one job": self.new_jobs == self.accepted,
            "one key makes one dataset": self.datasets_off == 0,
            "no row is missing": self.missing_rows == 0,
            "no row is there twice": self.duplicate_rows == 0,
            "no lease is lost without a fault": self.lost_undisturbed == 0,
            "of every end its receiver is told": self.notified == self.ended,
            "under one id and with a signature that holds": self.notified_wrongly == 0,
            "results are those of an undisturbed run, bit for bit": self.equal == self.succeeded,
            f"work goes on within {self.allowed_seconds:g} s": longest < self.allowed_seconds
            and all(fault.recovered_after is not None for fault in self.faults),
            "no log shows a password or a key": not self.leaks,
        }
        return [promise for promise, holds in checks.items() if not holds]

    def table(self) -> str:
        longest = f"{self.longest.recovered_after:.1f} s ({self.longest})" if self.longest else "no fault"
        lines = {
            "asked for": self.requested,
            "accepted": self.accepted,
            "ended": self.ended,
            "of them succeeded": self.succeeded,
            "jobs in the database": self.new_jobs,
            "datasets too many (+) or too few (-)": self.datasets_off,
            "missing rows": self.missing_rows,
            "duplicate rows": self.duplicate_rows,
            "equal to the undisturbed run, bit for bit": f"{self.equal} of {self.succeeded}",
            "leases lost before the first fault": self.lost_undisturbed,
            "ends that the receiver was told of": f"{self.notified} of {self.ended}",
            "under several ids, or with a wrong signature": self.notified_wrongly,
            "faults": len(self.faults),
            "longest recovery": longest,
            "logs that show a password or a key": ", ".join(self.leaks) or 0,
        }
        return "\n".join(f"{name:<42} {value}" for name, value in lines.items())


def judge(
    client: Client,
    records: Records,
    orders: Sequence[Order],
    crowd: Crowd,
    undisturbed: dict[str, Outcome],
    before: Rows,
    lost_undisturbed: int,
    faults: Sequence[Fault],
    receiver: Receiver,
    leaks: Sequence[str],
    allowed_seconds: float,
) -> Verdict:
    """Read everything back. `undisturbed` holds the outcome of each recipe without faults and `lost_undisturbed` the
    leases that were lost meanwhile, `before` what there was when the first order was sent; a fault may be felt for
    `allowed_seconds`."""
    accepted = crowd.accepted
    outcomes = {job.id: outcome(client, job.id) for job in accepted}
    succeeded = [job for job in accepted if outcomes[job.id].status == "succeeded"]
    now = Rows.counted(records)
    own = sum(order.dataset_id is None for order in orders)
    return Verdict(
        requested=len(orders),
        refused=crowd.refused,
        accepted=len(accepted),
        ended=sum(each.status in ("succeeded", "failed", "cancelled") for each in outcomes.values()),
        succeeded=len(succeeded),
        new_jobs=now.jobs - before.jobs,
        datasets_off=now.datasets - before.datasets - own,
        missing_rows=sum(each.missing for each in outcomes.values()),
        duplicate_rows=sum(each.duplicates for each in outcomes.values()),
        equal=sum(outcomes[job.id].digest == undisturbed[job.recipe.name].digest for job in succeeded),
        lost_undisturbed=lost_undisturbed,
        notified=sum(job.id in receiver.notices for job in accepted),
        notified_wrongly=receiver.forged + sum(len(ids) > 1 for ids in receiver.notices.values()),
        faults=faults,
        leaks=leaks,
        allowed_seconds=allowed_seconds,
    )
