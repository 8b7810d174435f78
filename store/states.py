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
