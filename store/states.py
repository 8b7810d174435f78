"""The closed sets of states. A row moves from one to another only in the file of its noun."""

from enum import StrEnum


class DatasetStatus(StrEnum):
    """Where a dataset stands."""

    INGESTING = "ingesting"  # the upload is kept; its pairs are being read
    READY = "ready"  # every pair was read; at least one is usable
    FAILED = "failed"  # the upload cannot be read, or no usable pair is left


class DuplicateKind(StrEnum):
    """In what two pairs of a dataset are equal. The last two are of datasets of embeddings only."""

    IMAGE = "image"  # the image's bytes; of a dataset of embeddings, the image's embedding
    PIXELS = "pixels"  # what the image decodes to
    CAPTION = "caption"  # the caption; of a dataset of embeddings, the text's embedding
    NEAR_IMAGE = "near_image"  # the image's embedding, or nearly
    NEAR_CAPTION = "near_caption"  # the text's embedding, or nearly


class ModelStatus(StrEnum):
    """Where a model that a user brought stands."""

    CHECKING = "checking"  # its checkpoint is being fetched, or loaded once to see whether it fits
    READY = "ready"  # it fits its architecture, and every number of it is finite
    FAILED = "failed"  # it cannot be had, or does not fit


class JobStatus(StrEnum):
    """Where a job stands. The last three are ends."""

    QUEUED = "queued"  # accepted and promised; nothing has started
    RUNNING = "running"  # a worker has taken up at least one shard
    CANCELLING = "cancelling"  # the user asked; running shards are being told
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class ShardState(StrEnum):
    """Where a shard of work stands."""

    QUEUED = "queued"  # any worker may claim it once `not_before` has passed
    RUNNING = "running"  # one attempt holds the lease
    DONE = "done"  # its output is recorded
    FAILED = "failed"  # it ended its owner
    DROPPED = "dropped"  # its owner ended first


class Setback(StrEnum):
    """Why an attempt at a shard did not come to its end; each is counted in the shard's column of the same name."""

    RAISED = "raised"  # the step raised: its own fault, for all that is known
    EXHAUSTED = "exhausted"  # the memory did not suffice
    HINDERED = "hindered"  # the database, a disk or a store failed it: it waits, and is not to blame


class DeliveryStatus(StrEnum):
    """Where the notice of a job's end stands."""

    WAITING = "waiting"  # it will be sent, or is being sent, or sent again
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # given up: the receiver is gone, or every try failed


class Phase(StrEnum):
    """The steps of the work, in order. Those from `fetch` to `register` belong to a dataset, `fetch` and `check` to a
    model, the others to a job."""

    CHECK = "check"
    FETCH = "fetch"
    INDEX = "index"
    INGEST = "ingest"
    JOIN = "join"
    REGISTER = "register"
    PLAN = "plan"
    ENCODE = "encode"
    FIT = "fit"
    FACTORS = "factors"
    BASES = "bases"
    EIGENVALUES = "eigenvalues"
    PROJECT = "project"
    CURVATURE = "curvature"
    BASELINES = "baselines"
    EDIT = "edit"
    TRACE = "trace"
    SCORE = "score"
    RANK = "rank"
    LOAD = "load"


class Lane(StrEnum):
    """What the work of a phase needs. Each lane is a queue of the broker, and a worker serves all of them or some: what
    waits for the network or a disk then never occupies a GPU."""

    FETCH = "fetch"  # the network: other people's servers set the pace
    INGEST = "ingest"  # processors and disk
    COMPUTE = "compute"  # torch, on a GPU where there is one


_LANES = {
    Phase.FETCH: Lane.FETCH,
    Phase.INDEX: Lane.INGEST,
    Phase.INGEST: Lane.INGEST,
    Phase.JOIN: Lane.INGEST,
    Phase.REGISTER: Lane.INGEST,
}


def lane_of(phase: Phase) -> Lane:
    """Where the shards of a phase queue."""
    return _LANES.get(phase, Lane.COMPUTE)


PHASE_VERSIONS: dict[str, int] = dict.fromkeys(map(str, Phase), 1)
"""The version of what the shards of each phase are told, and of what they leave for the phases after them. A worker
claims only versions that it knows; raise one with every change that the version before could not work with."""

PROGRESS_UNITS = {
    Phase.FETCH: "MiB",
    Phase.CHECK: "models",
    Phase.INDEX: "pairs",
    Phase.INGEST: "pairs",
    Phase.JOIN: "pairs",
    Phase.REGISTER: "pairs",
    Phase.PLAN: "pairs",
    Phase.ENCODE: "pairs",
    Phase.FIT: "epochs",
    Phase.FACTORS: "pairs",
    Phase.BASES: "bases",
    Phase.EIGENVALUES: "pairs",
    Phase.PROJECT: "pairs",
    Phase.CURVATURE: "passes",
    Phase.BASELINES: "methods",
    Phase.EDIT: "epochs",
    Phase.TRACE: "pairs",
    Phase.SCORE: "pairs",
    Phase.RANK: "pairs",
    Phase.LOAD: "pairs",
}
"""What the progress of a phase counts. An epoch and a pass both go once over the data."""


def progress_unit(phase: str) -> str:
    """What the progress of a phase counts; of one that only a newer release knows, its steps."""
    return PROGRESS_UNITS[Phase(phase)] if phase in PROGRESS_UNITS else "steps"
