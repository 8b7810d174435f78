"""What the service answers, as types. They are plain dictionaries: what a newer service adds comes too."""

from typing import Any, Literal, TypedDict

Task = Literal["misalignment", "valuation", "traceback", "removal"]
JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
DatasetStatus = Literal["ingesting", "ready", "failed"]
ModelStatus = Literal["checking", "ready", "failed"]
DeliveryStatus = Literal["waiting", "delivered", "failed"]

Spec = dict[str, Any]
"""A job's specification, as the service documents it under `/docs`."""


class Failure(TypedDict):
    """Why something ended."""

    code: str
    message: str
    param: str | None


class Progress(TypedDict):
    """How far the present phase is; `total` is 0 while it is not known."""

    done: int
    total: int
    unit: str


class Job(TypedDict):
    id: str
    name: str | None
    metadata: dict[str, str]
    task: Task
    status: JobStatus
    phase: str | None
    progress: Progress | None
    spec: Spec
    dataset_digest: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: Failure | None
    summary: dict[str, Any] | None


class Event(TypedDict):
    """Where a job stood at one time."""

    id: str
    status: JobStatus
    phase: str | None
    progress: Progress | None
    error: Failure | None


class Dataset(TypedDict):
    id: str
    name: str | None
    metadata: dict[str, str]
    source: str | None
    digest: str | None
    format: str | None
    status: DatasetStatus
    pair_count: int | None
    rejected_count: int | None
    warnings: list[str]
    summary: dict[str, Any] | None
    error: Failure | None
    created_at: str


class Pair(TypedDict):
    """A pair of a dataset; a rejected one says why in `error`."""

    key: str | None
    caption: str | None
    width: int | None
    height: int | None
    extra: dict[str, Any] | None
    error: str | None
    duplicate_of: str | None


class Reason(TypedDict):
    """One of the columns that made a pair suspicious, and how much it adds."""

    column: str
    contribution: float | None


class Result(TypedDict):
    """One pair's scores; what was not computed is null."""

    rank: int
    query: str | None
    key: str | None
    caption: str | None
    image_url: str | None
    influence: float | None
    positive_influence: float | None
    negative_influence: float | None
    relative_influence: float | None
    self_influence: float | None
    clip_score: float | None
    pair_loss: float | None
    tracin: float | None
    trak: float | None
    ekfac_if: float | None
    magic: float | None
    neighbour_influence: float | None
    lemon: float | None
    contrast_loss: float | None
    margin: float | None
    leave_one_out: float | None
    suspicion: float | None
    why: list[Reason] | None
    better_caption: str | None
    exchanged_with: str | None
    p_value: float | None
    q_value: float | None
    flagged: bool | None


class Model(TypedDict):
    """A checkpoint that a user brought."""

    id: str
    name: str | None
    source: str | None
    architecture: str | dict[str, Any] | None
    digest: str | None
    status: ModelStatus
    size_bytes: int
    error: Failure | None
    created_at: str


class Attempt(TypedDict):
    """One sending of a notice."""

    at: str
    seconds: float
    status_code: int | None
    error: str | None


class Delivery(TypedDict):
    """The notice of a job's end, on its way to `notify.url`."""

    id: str
    event: str
    url: str
    status: DeliveryStatus
    next_attempt_at: str | None
    attempts: list[Attempt]
    created_at: str


class EndingSecret(TypedDict):
    """A secret that another one has replaced."""

    secret: str
    expires_at: str


class WebhookSecret(TypedDict):
    """What notices are signed with."""

    secret: str
    previous: EndingSecret | None


class PhaseEstimate(TypedDict):
    """A phase that a job would have; null is what is not known."""

    phase: str
    unit: str
    shards: int | None
    seconds: float | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    based_on: int | None
    reason: str | None


class Estimate(TypedDict):
    """What a job would take, by finished jobs."""

    spec: Spec
    pairs: int | None
    results: int | None
    seconds: float | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    phases: list[PhaseEstimate]
