"""The phases of all work, and who owns it: what the queue, the API and the workers know of a phase alike.

What a phase reads, how it is cut, what runs and what it leaves stands in the one table of `worker/pipeline.py`. What
stands here is what the API needs too, which opens the first phase of everything and shows the progress of each.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Lane(StrEnum):
    """What the work of a phase needs. Each lane is a queue of the broker, and a worker serves all of them or some: what
    waits for the network or a disk then never occupies a GPU."""

    FETCH = "fetch"  # the network: other people's servers set the pace
    INGEST = "ingest"  # processors and disk
    COMPUTE = "compute"  # torch, on a GPU where there is one


class Phase(StrEnum):
    """The phases of datasets (`fetch` to `register`), of models (`fetch`, `check`) and of jobs (`plan` to `load`).

    Attributes:
        unit: what its progress counts. An epoch and a pass both go once over the data.
        lane: where its shards queue.
        version: of what its shards are told, and of what they leave for the phases after them. A worker claims only
            versions that it knows; raise it with every change that the version before could not work with.
    """

    unit: str
    lane: Lane
    version: int

    def __new__(cls, name: str, unit: str = "steps", lane: Lane = Lane.COMPUTE, version: int = 1) -> Self:
        phase = str.__new__(cls, name)
        phase._value_, phase.unit, phase.lane, phase.version = name, unit, lane, version
        return phase

    FETCH = "fetch", "MiB", Lane.FETCH
    CHECK = "check", "models"
    INDEX = "index", "pairs", Lane.INGEST
    INGEST = "ingest", "pairs", Lane.INGEST, 2
    JOIN = "join", "pairs", Lane.INGEST
    REGISTER = "register", "pairs", Lane.INGEST, 2
    PLAN = "plan", "pairs"
    ENCODE = "encode", "pairs"
    FIT = "fit", "epochs", Lane.COMPUTE, 3
    FACTORS = "factors", "pairs", Lane.COMPUTE, 2
    BASES = "bases", "bases"
    EIGENVALUES = "eigenvalues", "pairs", Lane.COMPUTE, 2
    PROJECT = "project", "pairs", Lane.COMPUTE, 2
    CURVATURE = "curvature", "passes", Lane.COMPUTE, 3
    BASELINES = "baselines", "methods", Lane.COMPUTE, 2
    EDIT = "edit", "epochs", Lane.COMPUTE, 2
    TRACE = "trace", "pairs", Lane.COMPUTE, 2
    SCORE = "score", "pairs", Lane.COMPUTE, 2
    DETECT = "detect", "looks"
    RANK = "rank", "pairs"
    LOAD = "load", "pairs"


PHASE_VERSIONS: dict[str, int] = {phase.value: phase.version for phase in Phase}
"""What this release can claim."""


def progress_unit(phase: str) -> str:
    """What the progress of a phase counts; of one that only a newer release knows, its steps."""
    return Phase(phase).unit if phase in PHASE_VERSIONS else "steps"


class OwnerKind(StrEnum):
    """What work can belong to."""

    DATASET = "dataset"
    MODEL = "model"
    JOB = "job"


@dataclass(frozen=True)
class Owner:
    """What a shard belongs to: the dataset that is ingested, the model that is checked or the job that is computed."""

    kind: OwnerKind
    id: str

    def __str__(self) -> str:
        return self.id

    @property
    def folder(self) -> str:
        """Where its blobs lie."""
        return f"{self.kind}s/{self.id}"

    @property
    def passing_folder(self) -> str:
        """Where those of its blobs lie that are deleted when its work has ended well."""
        return f"{self.folder}/passing"
