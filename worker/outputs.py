"""What each phase leaves for the phases after it, and what its shards are told: the types of the pipeline.

All of it is JSON in the rows of shards. A field that is renamed keeps its name there by an alias: a worker of the
release before may read it, or have written it. What an older one cannot work with raises the phase's version
(`store/phases.py`).
"""

from dataclasses import dataclass, field
from math import nan
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, TypeAdapter

from store.summaries import Query, Removal, TallyCounts

Json = dict[str, Any]

Number = Annotated[float, BeforeValidator(lambda value: nan if value is None else value)]
"""A number that was computed. One that is not finite is null in JSON, and NaN when it is read again."""


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


class Record:
    """A dataclass that is kept as JSON."""

    def as_json(self) -> Json:
        """As it stands in a row, without what is as by default; numbers may still be NaN."""
        content: Json = _adapter(type(self)).dump_python(self, mode="json", by_alias=True, exclude_defaults=True)
        return content

    @classmethod
    def from_json(cls, content: Json) -> Self:
        """Raises:
        pydantic.ValidationError: it is not of this type.
        """
        record: Self = _adapter(cls).validate_python(content)
        return record


class Output(Record):
    """What one shard of a phase leaves."""


class Payload(Record):
    """What one shard is told."""


@dataclass(frozen=True)
class Nothing(Output):
    """Its work is in the database or in blobs that others name."""


# ---- rounds of a phase (`worker/analysis/rounds.py`)


@dataclass(frozen=True)
class SumRequest:
    """A sum over the pass `over`. term: its class. numbers: its fields that are whole numbers. question: a blob of
    those that are tensors, and of the weights that it is taken at, where they are not the job's."""

    term: str
    over: str
    numbers: dict[str, int]
    question: str


@dataclass(frozen=True)
class PendingSum:
    """What a step of a phase needs before it can go on.

    digest: of the sum. leaves: how many it is over. bytes: of the sum, about.
    state, notes: blobs of what the step has written down. read: blobs that the step has read, and nobody after it.
    """

    sum: SumRequest
    digest: str
    leaves: int
    bytes: int
    state: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GoOn:
    """A step goes on with the sum of `parts`, blobs in order; `read` are others that nobody needs any more."""

    pending: PendingSum
    parts: list[str]
    read: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LeafRange:
    """The leaves from `first` to `last` of what round `requested_in` of the phase waits for."""

    sum: SumRequest
    requested_in: int
    first: int
    last: int


@dataclass(frozen=True)
class Parts:
    """Blobs of partial sums, in order, of what round `requested_in` waits for."""

    parts: list[str]
    requested_in: int


@dataclass(frozen=True)
class RoundPayload(Payload):
    """What a shard of a phase with rounds is told: one of the three, or nothing for the first step."""

    go_on: GoOn | None = None
    sum: LeafRange | None = None
    add: Parts | None = None


@dataclass(frozen=True)
class RoundOutput(Output):
    """What a shard of a phase with rounds leaves before the phase's end: a step what it waits for, others the blob of a
    partial sum of what round `requested_in` waits for, and blobs that they have `read`, and nobody after them."""

    pending: PendingSum | None = None
    part: str | None = None
    requested_in: int = 0
    read: list[str] = field(default_factory=list)


# ---- datasets and models


@dataclass(frozen=True)
class FetchOutput(Output):
    """digest: of the bytes, with its algorithm. bytes: how many they are."""

    digest: str
    bytes: int


@dataclass(frozen=True)
class CheckOutput(Output):
    """digest: of the model, as `encoders.LoadedModel.digest`."""

    digest: str


@dataclass(frozen=True)
class ReadRange(Payload):
    """What a shard of `ingest` reads, about `pairs` of them: the rows from `first` to `last`, or what the blob
    `listing` lists, or the whole upload."""

    pairs: int
    first: int | None = None
    last: int | None = None
    listing: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class UploadFacts:
    """What a reader says of an upload as a whole, once it was read to its end. `about` goes into the summary."""

    format: str
    kind: str
    about: Json
    warnings: list[str]


@dataclass(frozen=True)
class IndexOutput(UploadFacts, Output):
    """How an upload is cut for `ingest`."""

    shards: list[ReadRange]


@dataclass(frozen=True)
class WrittenPart:
    """`items` pairs, good and bad, `count` of them accepted. The blob `blob` holds these; `pairs` is the blob that says
    what all of them are (`worker/ingest/part_writer.py`)."""

    blob: str | None
    pairs: Annotated[str, Field(alias="found")]
    items: int
    count: int


@dataclass(frozen=True)
class IngestOutput(Output):
    """What a shard read. `facts` only where it read the upload as a whole, of which it then knows more than the index.

    tally: as `Tally.as_json`. fingerprints: a blob. codes: a blob for each kind of near duplicates.
    """

    parts: list[WrittenPart]
    rejected: int
    first_reason: str | None
    width: int | None
    tally: TallyCounts
    fingerprints: str
    codes: dict[str, str]
    format: str | None = None
    kind: str | None = None
    about: Json | None = None
    warnings: list[str] | None = None


@dataclass(frozen=True)
class PlacedPart:
    """A part of `items` pairs, described by the blob `pairs`, whose first pair is at `position` of the upload, and
    whose first accepted one is `row` of the dataset."""

    pairs: Annotated[str, Field(alias="found")]
    items: int
    position: int
    row: int
    part: int


@dataclass(frozen=True)
class RegisterRange(Payload):
    """The parts whose pairs a shard of `register` writes, in order."""

    parts: list[PlacedPart]


@dataclass(frozen=True)
class JoinOutput(Output):
    """What a dataset turned out to be; `ranges` are what the shards of `register` are told."""

    ranges: list[list[PlacedPart]]
    pairs: int
    rejected: int
    first_reason: str | None
    format: str
    kind: str
    width: int | None
    warnings: list[str]
    summary: Json


# ---- jobs


@dataclass(frozen=True)
class PlanOutput(Output):
    """roster: a blob (`Roster`). pairs: N that are trained on, `scored` and `calibration` pairs. validation: V.
    batches: of a partition. removed: how many pairs a removal takes out, `removed_blob` which."""

    roster: str
    pairs: int
    scored: int
    calibration: int
    validation: int
    batches: int
    removed: int | None
    removed_blob: str | None


@dataclass(frozen=True)
class PartToEncode(Payload):
    """Part `part` of dataset `dataset`, whose number is `number`: `count` rows from `first_row`, images in `blob`.
    checkpoint: the model that encodes it, of those that the job names beside its own; `None` is its own."""

    dataset: str
    number: int
    part: int
    blob: str
    first_row: int
    count: int
    checkpoint: str | None = None


@dataclass(frozen=True)
class Encoded:
    """How many went through the model; the rest was known."""

    images: int
    captions: int


@dataclass(frozen=True)
class EncodeOutput(Output):
    """Where the records of a part are: `count` rows from `first_row` in `blob`. truncated: captions that were cut.
    encoder: versions of what encoded them, as `encoders.encoder_versions`. checkpoint: as in `PartToEncode`.
    logit_bias: of a model trained with the sigmoid loss."""

    dataset: str
    part: int
    blob: str
    first_row: int
    count: int
    model_digest: str
    truncated: int
    encoded: Encoded
    encoder: dict[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    logit_bias: float | None = None


@dataclass(frozen=True)
class FitOutput(Output):
    """How a fit ended. checkpoints, params: blobs.
    decrement_bound: of the Newton decrement, in units of the summed loss; `None` without a prior. bounded: a few passes
    of mini-batches were all that was wanted of it, as there are many pairs and nothing is ranked by it."""

    checkpoints: str
    params: str
    epochs: int
    objective: Number
    gradient_norm: Number
    decrement_bound: Number | None
    stationary: bool
    adam_precision: str
    temperature: Number
    bounded: bool = False


@dataclass(frozen=True)
class BatchRange(Payload):
    """The batches from `first` to `last` of a partition."""

    partition: int
    first: int
    last: int


@dataclass(frozen=True)
class FactorsOutput(Output):
    """sums: a blob of the Kronecker factors, summed over the batches of a shard."""

    sums: str


@dataclass(frozen=True)
class BasesOutput(Output):
    """bases: a blob of the eigenvectors of all factors."""

    bases: str


@dataclass(frozen=True)
class EigenvaluesOutput(Output):
    """sums: a blob of the curvature along the bases, summed over the batches of a shard."""

    sums: str


@dataclass(frozen=True)
class ProjectOutput(Output):
    """store: a blob of projected gradients and their places. curvature: a blob of their summed curvature."""

    store: str
    curvature: str


@dataclass(frozen=True)
class SelfInfluenceMethod:
    """How self-influence is had, and along how many probes; 0 where exactly."""

    method: str
    probes: int


@dataclass(frozen=True)
class CurvatureOutput(Output):
    """What was solved. solved: a blob of the directions by name, and of the factor of a curvature that has one.

    parameters: P. validation_loss: L_val, where it is taken. objective, gradient_norm, decrement_bound,
    newton_decrement: of the training objective, where no fit has made it stationary; the decrements in units of the
    summed loss.
    """

    solved: Annotated[str, Field(alias="kept")]
    self_influence: SelfInfluenceMethod
    parameters: int
    curvature: str
    damping: Number
    damping_reason: str
    iterations: int
    relative_residual: Number
    converged: bool
    eigenvalue_range: list[Number] | None
    validation_loss: Number | None = None
    objective: Number | None = None
    gradient_norm: Number | None = None
    decrement_bound: Number | None = None
    newton_decrement: Number | None = None

    def as_json(self) -> Json:
        """With the bound, be it null, wherever there is a gradient: a worker of the release before asks for it."""
        content = super().as_json()
        return content if self.gradient_norm is None else {"decrement_bound": None} | content


@dataclass(frozen=True)
class MethodsToPrepare(Payload):
    """The baselines that were asked for."""

    methods: list[str]


@dataclass(frozen=True)
class MagicReport(Record):
    """The fit that `magic` went back through, in the job's summary. root: under Adam's square root. validation_loss: at
    its end."""

    epochs: int
    steps: int
    learning_rate: float
    root: float
    validation_loss: float


@dataclass(frozen=True)
class BaselinesOutput(Output):
    """prepared: a blob of what each of `methods` needs for scoring. checkpoints: the digest of each model that the job
    names beside its own, by its id. magic: of the method of that name."""

    prepared: str
    methods: list[str]
    checkpoints: dict[str, str] = field(default_factory=dict)
    magic: MagicReport | None = None


@dataclass(frozen=True)
class EditOutput(Output):
    """checkpoint: a blob of the edited model. report: the removal in the job's summary."""

    checkpoint: str
    report: Annotated[Removal, Field(alias="told")]


@dataclass(frozen=True)
class RowRange(Payload):
    """The queries, or the ranks, from `first` to `last`."""

    first: int
    last: int


@dataclass(frozen=True)
class Solve:
    """How far the solve for some queries went."""

    iterations: int
    relative_residual: Number
    converged: bool


@dataclass(frozen=True)
class TraceOutput(Output):
    """traced: a blob of the most responsible pairs of each query. queries: what the summary says of each. spans: how
    the lengths of the pairs' influence were had, and `probes` along how many probes; 0 where exactly. solve: `None`
    where none was needed."""

    traced: str
    queries: list[Query]
    spans: str
    solve: Solve | None
    probes: int = 0


@dataclass(frozen=True)
class ScoreOutput(Output):
    """scores: a blob of every score of the `pairs` of a shard, and their places. embeddings: a blob of both embeddings
    of the pairs of the first partition, of the model as it was given, where `detect` follows. again: a blob of what
    some pairs score in other batches, and their places, from one shard of a job that has one partition."""

    scores: str
    pairs: int
    embeddings: str | None = None
    again: str | None = None


@dataclass(frozen=True)
class DetectOutput(Output):
    """What was learned of which pairs look wrong. detected: a blob by place: suspicion, the columns that raised it most
    and by how much, whose caption fits better, who looks exchanged; and the suspicion of injected pairs.

    columns: what the suspicion is made of. report: in the job's summary. unlike: how well a clean set is told from the
    data, where it is so well that it cannot stand for them.
    """

    detected: str
    columns: list[str]
    report: Json
    reason: str | None = None
    unlike: float | None = None


@dataclass(frozen=True)
class RankOutput(Output):
    """ranked: a blob of the columns of `results` rows, in order. queries: the keys that the column `query` counts.
    columns: the names that the column `why` counts.

    Beside the scores the blob may hold `better_position` and `exchanged_position`, (n,) int64; `why`, (n, 3) int64, and
    `contribution`, (n, 3) float64, the columns that made a pair suspicious and by how much. -1 is none.
    """

    ranked: str
    results: int
    flagged: int | None
    summary: Json
    queries: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
