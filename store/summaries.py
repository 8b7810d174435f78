"""What a job and a dataset say of themselves when they are done: the types of `summary`, as workers write it, the API
shows it and the OpenAPI document describes it.

A field that came with a later release, or that one task alone has, may be missing (`NotRequired`). A number that was
computed is null where it is not finite.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

Computed = float | None


class Counts(TypedDict):
    """How many pairs did what."""

    pairs: Annotated[int, Field(description="usable ones of the dataset")]
    rejected: int | None
    scored: int
    held_out: int
    validation: int
    calibration: Annotated[int, Field(description="clean pairs that calibrate the flags")]
    batches: int
    flagged: Annotated[int | None, Field(description="null where the task flags nothing")]
    truncated_captions: Annotated[int | None, Field(description="null without a model")]
    queries: NotRequired[Annotated[int, Field(description="of a traceback")]]


class Flagging(TypedDict):
    """How pairs were flagged."""

    method: Annotated[str, Field(description="conformal: against clean pairs; otherwise an estimate")]
    false_discovery_rate: float
    confidence: NotRequired[float | None]
    by: NotRequired[str | None]
    calibration_pairs: int
    estimated_noise_rate: Annotated[Computed, Field(description="share of wrong pairs")]


class Suspicion(TypedDict):
    """What suspicion is made of."""

    columns: list[str]
    weights: dict[str, Computed]
    injected_auroc: Annotated[
        Computed, Field(description="how well exchanged captions are told from the pairs as they came")
    ]
    injected: Annotated[dict[str, int], Field(description="exchanged captions, by kind of partner")]
    reason: NotRequired[Annotated[str | None, Field(description="why nothing was learned; null where something was")]]


class Stability(TypedDict):
    """How far repeats of one score agree, each with other draws."""

    over: Annotated[
        Literal["exchanges", "partitions"],
        Field(description="what was drawn again: which captions were exchanged, or who met whom in a batch"),
    ]
    repeats: int
    pairs: Annotated[int, Field(description="that two repeats have in common")]
    rank_correlation: Annotated[Computed, Field(description="Spearman's, the mean over all two repeats")]
    top_overlap: Annotated[
        dict[str, Computed],
        Field(description="of the top 1, 5 and 10 % of one repeat, the share that is in the top of another"),
    ]
    standard_error: Annotated[Computed, Field(description="of the score of a pair, in its own units")]


class GroupRates(TypedDict):
    """One group of pairs."""

    group: Annotated[str | None, Field(description="null: the rest")]
    pairs: int
    flagged: int
    flagged_rate: float
    estimated_noise_rate: Computed
    calibration_pairs: int | None
    clean_pairs_needed: int | None


class Histogram(TypedDict):
    """`counts[i]` values lie from `edges[i]` to `edges[i + 1]`."""

    edges: list[Computed]
    counts: list[int]


class Distribution(TypedDict):
    """How the values of one score are spread."""

    mean: Computed
    standard_deviation: Computed
    quantiles: Annotated[dict[str, Computed], Field(description="by their level, 0 to 1")]
    histogram: Histogram


class Query(TypedDict):
    """One query of a traceback."""

    key: str
    true: str | None
    predicted: str | None
    loss: Computed


class ModelUsed(TypedDict):
    """The model that encoded."""

    digest: Annotated[str | None, Field(description="null of embeddings, whose model nobody named")]
    encoder: NotRequired[Annotated[dict[str, str], Field(description="versions of the libraries")]]


class LossUsed(TypedDict):
    """Which loss the job had."""

    name: Literal["softmax", "sigmoid"]
    logit_bias: float | None


class EncodedOnce(TypedDict):
    """How many went through a model, and how many were known."""

    encoded: int
    reused: int


class Encoding(TypedDict):
    """Over all datasets of the job."""

    images: EncodedOnce
    captions: EncodedOnce


class CheckpointUsed(TypedDict):
    """One of `model.checkpoints`."""

    id: str
    digest: str | None
    encoding: Encoding | None


class FitReport(TypedDict):
    """How the fit ended."""

    epochs: int
    objective: Computed
    gradient_norm: Computed
    decrement_bound: NotRequired[Annotated[Computed, Field(description="of the Newton decrement, in summed loss")]]
    stationary: bool
    adam_precision: str
    temperature: Computed
    bounded: NotRequired[
        Annotated[bool, Field(description="a few passes were all that was wanted: nothing is ranked by it")]
    ]


class CurvatureReport(TypedDict):
    """What was solved, and how far."""

    parameters: int
    curvature: str
    damping: Computed
    damping_reason: str
    iterations: int
    relative_residual: Computed
    converged: bool
    eigenvalue_range: list[Computed] | None
    validation_loss: NotRequired[Computed]
    objective: NotRequired[Computed]
    gradient_norm: NotRequired[Computed]
    decrement_bound: NotRequired[Computed]
    newton_decrement: NotRequired[Computed]
    spans: NotRequired[Annotated[str, Field(description="of a traceback: how the spans of pairs were had")]]
    spans_relative_standard_error: NotRequired[Computed]


class SelfInfluence(TypedDict):
    """How self-influence was had."""

    method: str
    probes: int
    relative_standard_error: Computed


class EditedLoss(TypedDict):
    """The mean validation loss around a removal."""

    before: Computed
    predicted_change: Computed
    edited: Annotated[Computed, Field(description="of the edited model itself")]


class Refit(TypedDict):
    """A real refit without the removed pairs, and how far the edit is from it."""

    stationary: bool
    epochs: int
    step_norm: Computed
    cosine_of_steps: Computed
    relative_gap: Computed
    validation_loss: NotRequired[Computed]


class Removal(TypedDict):
    """What taking pairs out did."""

    removed: int | None
    step_norm: Computed
    relative_step_norm: Computed
    validation_loss: EditedLoss | None
    verified: Refit | None


class PhaseReport(TypedDict):
    """What a phase took."""

    phase: str
    version: NotRequired[int]
    shards: NotRequired[int]
    seconds: float
    pairs: int
    pairs_per_second: float | None
    memory_bytes: NotRequired[int | None]
    device_memory_bytes: NotRequired[int | None]


class MagicReport(TypedDict):
    """The fit on a fixed schedule that the method `magic` went back through; `root` is under Adam's square root."""

    epochs: int
    steps: int
    learning_rate: float
    root: float
    validation_loss: Annotated[float, Field(description="at its end")]


class Methods(TypedDict):
    """What the model, the loss, the fit, the curvature and the self-influence were."""

    model: ModelUsed
    loss: NotRequired[LossUsed]
    encoding: Encoding | None
    checkpoints: NotRequired[list[CheckpointUsed]]
    fit: FitReport | None
    curvature: CurvatureReport | None
    self_influence: SelfInfluence | None
    magic: NotRequired[MagicReport]


class Ranked(Methods):
    """What is known when the pairs are in order."""

    counts: Counts
    ranked_by: Annotated[str, Field(description="in words")]
    scores: NotRequired[Annotated[dict[str, Distribution], Field(description="by name; not in listings")]]
    warnings: Annotated[list[str], Field(description="what a careful reader of the result should know")]
    flagging: NotRequired[Flagging | None]
    suspicion: NotRequired[Suspicion]
    stability: NotRequired[
        Annotated[
            dict[str, Stability | Computed],
            Field(description="by column; null where nothing is to compare; one number: of a release before"),
        ]
    ]
    groups: NotRequired[
        Annotated[
            dict[str, list[GroupRates] | None],
            Field(description="by label, language, length or script; null where it does not tell pairs apart"),
        ]
    ]
    queries: NotRequired[Annotated[list[Query], Field(description="of a traceback; not in listings")]]
    removal: NotRequired[Removal | None]


class GateCheck(TypedDict):
    """One rule of a gate, and what was measured."""

    level: Literal["error", "warn"]
    rule: Annotated[str, Field(description="`flagged`, `increase.noise`, `columns.clip_score`, …")]
    measured: Annotated[Computed, Field(description="null where it could not be measured: that does not pass")]
    comparison: Literal["at most", "at least"]
    bound: float
    verdict: Literal["pass", "warn", "fail"]
    message: Annotated[str, Field(description="the same in words")]


class GateVerdict(TypedDict):
    """Whether the data keep to the gate of the specification."""

    verdict: Literal["pass", "warn", "fail"]
    baseline: str | None
    checks: list[GateCheck]


class JobSummary(Ranked):
    """What a job that succeeded says of itself."""

    phases: list[PhaseReport]
    gate: NotRequired[Annotated[GateVerdict, Field(description="of the `gate` in the specification")]]


class TallyCounts(TypedDict):
    """What one shard of an ingest has counted; `labels` are pairs by label."""

    rejected: dict[str, int]
    captions: int
    characters: int
    longest: int
    further_captions: int
    _labels: dict[str, int]


class Duplicates(TypedDict):
    """How many groups of equal pairs, and how many pairs are in them."""

    groups: int
    pairs: int


class Captions(TypedDict):
    """The captions of a dataset."""

    count: int
    distinct: int
    mean_characters: float | None
    longest_characters: int
    further: Annotated[int, Field(description="second and later captions of one image")]


class PairCounts(TypedDict):
    """What ingest counted."""

    rejected: Annotated[dict[str, int], Field(description="by reason")]
    duplicates: Annotated[dict[str, Duplicates], Field(description="by kind")]
    captions: Captions
    labels: Annotated[dict[str, int] | None, Field(description="pairs by label; null without, or above 1,000")]


class UploadNotes(TypedDict):
    """What there was in an upload beside pairs."""

    repeated_keys: int
    unreferenced_images: int
    missing_shards: list[str]
    left_out: Annotated[dict[str, int], Field(description="files of other formats, by format")]


class DatasetSummary(PairCounts, total=False):
    """What ingest has counted, and what there was in the upload beside pairs."""

    repeated_keys: int
    unreferenced_images: int
    missing_shards: list[str]
    left_out: dict[str, int]
