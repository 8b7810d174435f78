"""The tables. Names of constraints are fixed by the metadata, so that migrations can name them too."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.phases import Lane
from store.states import DatasetStatus, DeliveryStatus, JobStatus, ModelStatus, ShardState

Json = dict[str, Any]

DEFAULT_TENANT = "default"
"""Whose everything is where nobody was asked for a key."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy's own declaration
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        Json: JSONB(none_as_null=True),
        bytes: LargeBinary,
    }


def _with_shards(table: str) -> Index:
    """The rows whose work has ended, and whose shards are still kept."""
    condition = text("finished_at IS NOT NULL AND NOT shards_pruned")
    return Index(f"ix_{table}_with_shards", "finished_at", postgresql_where=condition)


def _of_metadata(table: str) -> Index:
    """What listings are filtered by; most rows have none."""
    return Index(
        f"ix_{table}_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=text("metadata IS NOT NULL"),
    )


def _one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    names = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({names})", name=column)


class Dataset(Base):
    """An upload and what was read from it. The row of a deleted one stays until its pairs are purged."""

    __tablename__ = "datasets"
    __table_args__ = (
        _one_of("status", DatasetStatus),
        Index(None, "tenant", "created_at", "id"),
        Index("ix_datasets_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        _with_shards("datasets"),
        _of_metadata("datasets"),
        Index("ix_datasets_ingesting", "tenant", postgresql_where=text("status = 'ingesting'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(), unique=True)  # short name for the rows of its pairs
    tenant: Mapped[str] = mapped_column(server_default=DEFAULT_TENANT)
    name: Mapped[str | None]
    user_metadata: Mapped[Json | None] = mapped_column("metadata")  # null: none
    filename: Mapped[str | None]
    format: Mapped[str | None]  # as asked for, or as detected
    caption_template: Mapped[str | None]  # for a folder of classes
    kind: Mapped[str | None]  # images or embeddings; known once ingested
    width: Mapped[int | None]  # of an embedding
    status: Mapped[str]
    source: Mapped[str | None]  # where its bytes are fetched from, if they were not uploaded
    digest: Mapped[str | None]  # of the upload's bytes; null until they are fetched
    size_bytes: Mapped[int]
    kept_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # of what ingest made of the upload
    upload_blob: Mapped[str]
    pair_count: Mapped[int | None]
    rejected_count: Mapped[int | None]
    warnings: Mapped[Json | None]
    summary: Mapped[Json | None]  # counts that ingest made
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]  # put off: something of it could not be deleted
    shards_pruned: Mapped[bool] = mapped_column(server_default=text("false"))


class Upload(Base):
    """A file on its way in, in pieces. Its bytes lie where those of the dataset that it becomes will be looked for."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "tenant"), Index(None, "expires_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    dataset_id: Mapped[str]  # of the dataset that it becomes
    length: Mapped[int]
    received: Mapped[int] = mapped_column(server_default=text("0"))  # bytes that were acknowledged: they are kept
    writer: Mapped[str | None]  # the request that may add to it: fences every piece
    metadata_header: Mapped[str | None]  # as the client sent it
    digest: Mapped[str | None]  # of the bytes, once it is whole
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]  # when it became a dataset


class Part(Base):
    """One blob of a dataset's accepted pairs, in order: `count` rows from `first_row`."""

    __tablename__ = "parts"

    dataset_id: Mapped[str] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    blob: Mapped[str]
    first_row: Mapped[int]
    count: Mapped[int]


class Pair(Base):
    """One pair as it came. A rejected one has `error` and no `row`."""

    __tablename__ = "pairs"
    __table_args__ = (
        Index("uq_pairs_key", "dataset", "key", unique=True, postgresql_where=text("error IS NULL")),
        Index("ix_pairs_rejected", "dataset", "position", postgresql_where=text("error IS NOT NULL")),
    )

    dataset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # the number of its dataset
    position: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False
    )  # in the upload, the rejected ones counted
    row: Mapped[int | None]  # among the accepted, from 0
    part: Mapped[int | None]
    key: Mapped[str | None]
    caption: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    image_format: Mapped[str | None]
    image_offset: Mapped[int | None]  # of the image's bytes in the part's blob
    image_length: Mapped[int | None]
    extra: Mapped[Json | None]  # every other column that came in
    error: Mapped[str | None]
    shard: Mapped[str | None]  # of a sample of a webdataset: its tar as the upload names it, '' where it is the upload
    sample: Mapped[str | None]  # and its `__key__`, where that is not the key


class EncodedPart(Base):
    """A blob of what a model made of one part of a dataset."""

    __tablename__ = "encoded_parts"
    __table_args__ = (Index("uq_encoded_parts_blob", "blob", unique=True), Index(None, "used_at", "id"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    dataset_id: Mapped[str]
    blob: Mapped[str]
    size_bytes: Mapped[int]
    whole: Mapped[bool] = mapped_column(server_default=text("false"))  # announced before it is written
    used_at: Mapped[datetime]


class Feature(Base):
    """Where the features of one image or caption stand: a row of the records of a part."""

    __tablename__ = "features"
    __table_args__ = (Index(None, "part"),)

    key: Mapped[UUID] = mapped_column(primary_key=True)  # whose, which model's, and of what content
    part: Mapped[int]  # the id of its encoded part
    row: Mapped[int] = mapped_column(Integer)


class Model(Base):
    """A checkpoint that a user brought. The row of a deleted one stays until its blobs are purged."""

    __tablename__ = "models"
    __table_args__ = (
        _one_of("status", ModelStatus),
        Index(None, "tenant", "created_at", "id"),
        Index("ix_models_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        _with_shards("models"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=DEFAULT_TENANT)
    name: Mapped[str | None]
    architecture: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))  # a name or a configuration; null until
    # a file that is fetched has said which
    status: Mapped[str]
    source: Mapped[str | None]  # the URI or the job that its checkpoint is fetched from, if it was not uploaded
    digest: Mapped[str | None]  # of the file's bytes; null until they are fetched
    blob: Mapped[str | None]  # where a fetched checkpoint lies; null: where uploaded ones do
    size_bytes: Mapped[int]
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]  # put off: something of it could not be deleted
    shards_pruned: Mapped[bool] = mapped_column(server_default=text("false"))


class Duplicate(Base):
    """A pair that is equal to another in something. `first` is the earliest that is, and is listed too."""

    __tablename__ = "duplicates"

    dataset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # the number of its dataset
    kind: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # positions in the upload
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Job(Base):
    """A promise to compute. The row is the promise; messages to workers are only doorbells."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", JobStatus),
        Index(None, "tenant", "created_at", "id"),
        Index(None, "dataset_id"),
        Index(None, "validation_dataset_id"),
        Index(None, "queries_dataset_id"),
        Index("ix_jobs_model", "model_id", postgresql_where=text("model_id IS NOT NULL")),
        Index("ix_jobs_open", "tenant", "created_at", postgresql_where=text("finished_at IS NULL")),
        Index("ix_jobs_status", "status", postgresql_where=text("deleted_at IS NULL")),
        Index("ix_jobs_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index(
            "ix_jobs_deadline", "deadline_at", postgresql_where=text("deadline_at IS NOT NULL AND finished_at IS NULL")
        ),
        Index("ix_jobs_expires", "expires_at", postgresql_where=text("expires_at IS NOT NULL AND deleted_at IS NULL")),
        Index("ix_jobs_not_begun", "created_at", postgresql_where=text("status = 'queued' AND phase IS NULL")),
        _with_shards("jobs"),
        _of_metadata("jobs"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Identity(), unique=True)  # short name for the rows of its results
    tenant: Mapped[str] = mapped_column(server_default=DEFAULT_TENANT)
    name: Mapped[str | None]
    user_metadata: Mapped[Json | None] = mapped_column("metadata")  # null: none
    task: Mapped[str]
    status: Mapped[str]
    phase: Mapped[str | None]
    spec: Mapped[Json]
    spec_version: Mapped[int] = mapped_column(server_default=text("1"))
    code_version: Mapped[str]
    dataset_id: Mapped[str]
    validation_dataset_id: Mapped[str | None]
    queries_dataset_id: Mapped[str | None]
    model_id: Mapped[str | None]  # of a model that a user brought
    checkpoint_ids: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # of models: that model along its training
    dataset_digest: Mapped[str | None]  # null until the dataset is ready
    result_count: Mapped[int] = mapped_column(server_default=text("0"))
    results_apart: Mapped[int] = mapped_column(server_default=text("0"))  # the partition of its results; 0 is shared
    checkpoint_blob: Mapped[str | None]  # the edited model of a removal
    kept_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # of the blobs that its shards made
    flagged_count: Mapped[int | None]  # null where the task flags nothing
    error: Mapped[Json | None]
    summary: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]  # it fails if it has not ended by then
    expires_at: Mapped[datetime | None]  # it is deleted then; set when it ends
    deleted_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]  # put off: something of it could not be deleted
    shards_pruned: Mapped[bool] = mapped_column(server_default=text("false"))

    def named_datasets(self) -> list[str]:
        """The datasets that the job works on, its own first."""
        return [id_ for id_ in (self.dataset_id, self.validation_dataset_id, self.queries_dataset_id) if id_]

    def named_models(self) -> list[str]:
        """The models of users that the job works with, its own first, each once."""
        return list(dict.fromkeys(id_ for id_ in (self.model_id, *(self.checkpoint_ids or ())) if id_))


class Shard(Base):
    """One claimable piece of a phase, of a dataset, of a model or of a job."""

    __tablename__ = "shards"
    __table_args__ = (
        _one_of("state", ShardState),
        CheckConstraint("num_nonnulls(dataset_id, job_id, model_id) = 1", name="one_owner"),
        Index("uq_shards_dataset_round", "dataset_id", "phase", "round", "index", unique=True),
        Index("uq_shards_model_round", "model_id", "phase", "round", "index", unique=True),
        Index("uq_shards_job_round", "job_id", "phase", "round", "index", unique=True),
        Index("ix_shards_waiting", "lane", "tenant", "turn", "id", postgresql_where=text("state = 'queued'")),
        # Neither holds a column that a renewal writes: renewals are then HOT updates, which touch no index.
        Index("ix_shards_held", "tenant", "lane", postgresql_where=text("state = 'running'")),
        Index("ix_shards_served", "lane", "tenant", "started_at"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    dataset_id: Mapped[str | None]
    job_id: Mapped[str | None]
    model_id: Mapped[str | None]
    tenant: Mapped[str] = mapped_column(server_default=DEFAULT_TENANT)  # of its owner
    lane: Mapped[str] = mapped_column(server_default=Lane.COMPUTE.value)
    turn: Mapped[int] = mapped_column(server_default=text("0"))  # its place among those of its tenant in its lane
    phase: Mapped[str]
    version: Mapped[int] = mapped_column(server_default=text("1"))  # of the phase
    spec_version: Mapped[int] = mapped_column(server_default=text("1"))  # of the job's specification
    round: Mapped[int] = mapped_column(server_default=text("0"))  # a job may open a phase more than once
    index: Mapped[int]
    payload: Mapped[Json]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))  # fences every write
    raised: Mapped[int] = mapped_column(server_default=text("0"))  # attempts that raised
    vanished: Mapped[int] = mapped_column(server_default=text("0"))  # attempts whose worker was not heard again
    exhausted: Mapped[int] = mapped_column(server_default=text("0"))  # attempts that the memory did not suffice for
    hindered: Mapped[int] = mapped_column(server_default=text("0"))  # pauses in a row, for what is not its own fault
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    done: Mapped[int] = mapped_column(server_default=text("0"))
    total: Mapped[int] = mapped_column(server_default=text("0"))
    checkpoint: Mapped[Json | None]  # from which a next attempt goes on
    output: Mapped[Json | None]
    kept_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # of the blobs that it has left
    memory_bytes: Mapped[int | None]  # the most that its process had
    device_memory_bytes: Mapped[int | None]  # and that it had of a GPU
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]  # of the current attempt
    finished_at: Mapped[datetime | None]


class Delivery(Base):
    """The notice of a job's end, on its way to whoever asked to be told."""

    __tablename__ = "deliveries"
    __table_args__ = (
        _one_of("status", DeliveryStatus),
        Index(None, "job_id"),
        Index("ix_deliveries_waiting", "not_before", "id", postgresql_where=text("status = 'waiting'")),
        Index("ix_deliveries_turns", "tenant", "not_before", "id", postgresql_where=text("status = 'waiting'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # the webhook-id, the same each time it is sent
    job_id: Mapped[str]
    tenant: Mapped[str] = mapped_column(server_default=text("''"))  # of its job; '' of an earlier version
    event: Mapped[str]
    url: Mapped[str]
    receiver: Mapped[str]  # host and port of the URL: how many are sent there at once is bounded
    body: Mapped[str]  # to the byte, so no JSONB
    status: Mapped[str]
    turn: Mapped[int] = mapped_column(server_default=text("0"))  # of a claim or a replay: fences every end of a claim
    failures: Mapped[int] = mapped_column(server_default=text("0"))  # since it was first sent, or asked for again
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())  # while it is being sent: when that is over
    attempts: Mapped[list[Json]] = mapped_column(JSONB, server_default=text("'[]'"))  # the latest, oldest first
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


SCORES = (
    "influence",
    "positive_influence",
    "negative_influence",
    "neighbour_influence",
    "relative_influence",
    "self_influence",
    "clip_score",
    "pair_loss",
    "tracin",
    "trak",
    "ekfac_if",
    "magic",
    "lemon",
    "contrast_loss",
    "margin",
    "leave_one_out",
    "suspicion",
    "p_value",
    "q_value",
)
"""The columns of a result that hold a score: finite or null, each one a sort key."""


class Result(Base):
    """One scored pair of a job. Written once, complete, in rank order; never updated."""

    __tablename__ = "results"
    __table_args__ = (
        Index("ix_results_position", "job", "position"),
        Index("ix_results_query", "job", "query", "rank", postgresql_where=text("query IS NOT NULL")),
        Index("ix_results_flagged", "job", "rank", postgresql_where=text("flagged")),
        *(
            Index(f"ix_results_{score}", "job", score, "rank", postgresql_where=text(f"{score} IS NOT NULL"))
            for score in SCORES
        ),
        {"postgresql_partition_by": "LIST (apart)"},
    )

    apart: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("0"))  # the number
    # of a job with a partition of its own, which is dropped with it; 0 for all the small ones
    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # the number of its job
    rank: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False
    )  # 1 is the first that a person should look at
    position: Mapped[int]  # of the pair in the job's dataset
    query: Mapped[str | None]  # of a traceback: the key of the query that this pair is held responsible for
    influence: Mapped[float | None]
    positive_influence: Mapped[float | None]
    negative_influence: Mapped[float | None]
    neighbour_influence: Mapped[float | None]
    relative_influence: Mapped[float | None]
    self_influence: Mapped[float | None]
    clip_score: Mapped[float | None]
    pair_loss: Mapped[float | None]
    tracin: Mapped[float | None]
    trak: Mapped[float | None]
    ekfac_if: Mapped[float | None]
    magic: Mapped[float | None]
    lemon: Mapped[float | None]
    contrast_loss: Mapped[float | None]
    margin: Mapped[float | None]
    leave_one_out: Mapped[float | None]
    suspicion: Mapped[float | None]
    p_value: Mapped[float | None]
    q_value: Mapped[float | None]
    flagged: Mapped[bool | None]
    better_position: Mapped[int | None]  # of the pair whose caption fits the image better
    exchanged_position: Mapped[int | None]  # of the pair with which it seems to have exchanged its caption
    why: Mapped[list[Json] | None] = mapped_column(JSONB(none_as_null=True))  # `column` and `contribution` of each


class Secret(Base):
    """What all processes of one service share and nobody else knows; made by the first migration."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]


class WebhookSecret(Base):
    """What the notices of a tenant are signed with, from its first change of secrets on (`store/shared_secrets.py`)."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (Index(None, "tenant"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant: Mapped[str]
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]  # null of the newest


class ApiKey(Base):
    """What lets a tenant in. The key itself is nowhere: only its SHA-256, and its first letters for people."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("uq_api_keys_digest", "digest", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str | None]
    prefix: Mapped[str]
    digest: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """A request that must happen once. Claimed while it is worked on; afterwards it holds the answer to repeat."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_at"),)

    tenant: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    key_digest: Mapped[bytes] = mapped_column(primary_key=True)  # SHA-256 of what the client sent
    claim: Mapped[str]  # who works on it, or did: fences the answer
    lease_until: Mapped[datetime]  # of the claim; afterwards another may take it over
    fingerprint: Mapped[bytes | None]  # of the content that was asked for
    status: Mapped[int | None]  # null while claimed
    headers: Mapped[Json | None]
    body: Mapped[str | None]  # to the byte, so no JSONB
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BrowserSession(Base):
    """What a browser shows in place of an API key, until it expires. Only its SHA-256 is here."""

    __tablename__ = "browser_sessions"
    __table_args__ = (Index(None, "expires_at"),)

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Mark(Base):
    """What a person said of a pair of a job, last."""

    __tablename__ = "marks"

    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # the number of its job
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # of the pair in the job's dataset
    sampled: Mapped[bool] = mapped_column(primary_key=True)  # made on the random sample, where no score is in sight
    verdict: Mapped[str]
    caption: Mapped[str | None]  # the better one, where the verdict is to relabel
    marked_by: Mapped[str | None]  # the name of the API key; null where there are no keys
    marked_at: Mapped[datetime] = mapped_column(server_default=func.now())
