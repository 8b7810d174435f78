"""What a job is asked to do: every field, its default and its bounds. Unknown fields are errors.

Of a list the first wrong item is the only error (`fail_fast`): half a million of them would take a gigabyte."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from store.clean_pairs import CLEAN, ValidationDataset, ValidationFraction, ValidationMarks
from store.errors import InvalidError
from store.gates import Gate
from store.model_choice import DEFAULT_ARCHITECTURE, DEFAULT_PRETRAINED, Model, NamedModel
from store.strict import Strict
from store.tables import Dataset

SPECIFICATION_VERSION = 11
"""Of the fields below. Raised with every change to them: workers leave jobs alone whose specification is newer than
what they know, and a test holds the two together."""

_SINCE = {"deadline": 2, "ttl": 2, "gate": 9}
"""The fields of a job that came after the first version. Null, they are left out of what is kept and echoed."""

_METHODS_SINCE = {"leave_one_out": 3, "contrast_loss": 4, "margin": 4, "neighbour_influence": 7, "magic": 11}
"""The methods that came after it."""

_FLAG_SINCE = {"confidence": 4, "by": 6}
"""The fields of `flag` that came after it. As by default, they are left out of what is kept, yet echoed."""

_OBJECTIVE_SINCE = {"loss": 8, "logit_bias": 8}
"""The fields of `objective` that came after it. Null, they are left out of what is kept, yet echoed."""


_MARKS_SINCE = 10
"""`validation.marks`."""

_CHECKPOINTS_SINCE = 5
"""`model.checkpoints`, which is left out where there are none."""


def version_of(spec: dict[str, Any]) -> int:
    """The version that a worker must know to do a job: that of the newest field that the specification uses."""
    fields = [since for field, since in _SINCE.items() if spec.get(field) is not None]
    fields += [since for field, since in _FLAG_SINCE.items() if field in (spec.get("flag") or {})]
    objective = spec.get("objective") or {}
    fields += [since for field, since in _OBJECTIVE_SINCE.items() if objective.get(field) is not None]
    fields += [_MARKS_SINCE] if (spec.get("validation") or {}).get("marks") else []
    fields += [_CHECKPOINTS_SINCE] if (spec.get("model") or {}).get("checkpoints") else []
    return max([1, *fields, *(_METHODS_SINCE.get(method, 1) for method in spec.get("methods", ()))])


SMALLEST_TEMPERATURE = 0.01
"""Of the softmax loss: CLIP's own bound, s ≤ 100."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400, allow_inf_nan=False)]


class RemoveKeys(Strict):
    """Named pairs."""

    keys: Annotated[tuple[str, ...], Field(min_length=1, fail_fast=True)]


class RemoveFlagged(Strict):
    """The pairs that an earlier job on the same dataset flagged."""

    job: Annotated[str, Field(min_length=1, max_length=200)]
    flagged: Literal[True]


class Queries(Strict):
    """Test images with their true texts, each to be traced back to training pairs."""

    dataset: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="its captions are the true texts; a column `predicted` may hold what was predicted instead"
    )
    candidates: Annotated[tuple[str, ...], Field(min_length=2, fail_fast=True)] | None = Field(
        default=None, description="the texts that a query is classified among; default: all that the queries name"
    )
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    top: Annotated[int, Field(ge=1, le=10_000)] = Field(default=20, description="training pairs kept for each query")


class Lora(Strict):
    """The adapters of scope `lora`: W + (alpha/rank)·B·A on every linear map of both towers."""

    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[float, Field(gt=0, le=1024)] = 16.0


class Objective(Strict):
    """Which loss over which parameters."""

    scope: Literal["heads", "lora", "all"] = "heads"
    lora: Lora | None = Field(default=None, description="for scope lora; default rank 8, alpha 16")
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    partitions: Annotated[int, Field(ge=1, le=256)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    l2: NotNegative = Field(default=0.3, description="δ per pair, towards the weights the job starts from")
    loss: Literal["softmax", "sigmoid"] | None = Field(
        default=None,
        description="null takes what the model was trained with: sigmoid where its logits have a bias (SigLIP), else "
        "softmax (CLIP), which embeddings are taken to be of",
    )
    temperature: Annotated[float, Field(ge=1e-4, le=100)] | None = Field(
        default=None,
        description="τ = 1 / scale, from 0.01 on unless `loss` is sigmoid; null takes the model's own, and 0.01 for "
        "embeddings",
    )
    logit_bias: Annotated[float, Field(ge=-1000, le=1000)] | None = Field(
        default=None,
        description="with `loss` sigmoid: b in the logits cosine / temperature + b; null takes the model's own, and "
        "must not be left out where there is none, as for embeddings",
    )
    mask_duplicates: bool = Field(
        default=True, description="equal captions or equal images in one batch are no negatives of each other"
    )
    train_temperature: bool = Field(
        default=False,
        description="log(1/τ) is one of the trained parameters, in every scope, and so is the bias of the sigmoid "
        "loss; of the softmax loss 1/τ stays below 100",
    )

    @field_validator("temperature")
    @classmethod
    def _above_clip_s_own(cls, temperature: float | None, before: ValidationInfo) -> float | None:
        if temperature is not None and temperature < SMALLEST_TEMPERATURE and before.data.get("loss") != "sigmoid":
            raise ValueError(f"below {SMALLEST_TEMPERATURE} with `objective.loss` sigmoid only: say so")
        return temperature

    @field_validator("logit_bias")
    @classmethod
    def _of_the_sigmoid_loss(cls, logit_bias: float | None, before: ValidationInfo) -> float | None:
        if logit_bias is not None and before.data.get("loss") != "sigmoid":
            raise ValueError("with `objective.loss` sigmoid only, which has a bias: say so")
        return logit_bias

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        named: dict[str, Any] = fields(self)
        return {name: value for name, value in named.items() if value is not None or name not in _OBJECTIVE_SINCE}


# Heads on cached features come to rest within about a hundred cheap passes; whole towers are not taken that far.
DEFAULT_EPOCHS = {"heads": 200, "lora": 5, "all": 5}


class Fit(Strict):
    """Minimise the objective first, until stationary or for `epochs` passes over the data at most."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description=f"default {DEFAULT_EPOCHS['heads']} for scope heads, else {DEFAULT_EPOCHS['all']}"
    )
    learning_rate: Literal["auto"] | Positive = "auto"


class Influence(Strict):
    """How the curvature of the objective is inverted."""

    negative: Literal["exact", "taylor"] = "exact"
    damping: Literal["auto"] | NotNegative = Field(default="auto", description="λ per pair")
    curvature: Literal["gauss_newton", "hessian", "ekfac", "projected", "identity"] = "gauss_newton"


Grouping = Literal["label", "length", "language", "script"]


class Flag(Strict):
    """Which pairs to drop."""

    false_discovery_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="the share of right pairs among the flagged, at most; without a clean set an estimate"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.9, description="how surely the false discovery rate holds for the run at hand, given its clean pairs"
    )
    by: Grouping | None = Field(
        default=None,
        description="clean pairs calibrate for those of their own group, in which the rate then holds too: of equal "
        "`label` or `language` (columns of the data), of one script, or of captions about as long",
    )

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        named: dict[str, Any] = fields(self)
        defaults = {name: type(self).model_fields[name].default for name in _FLAG_SINCE}
        return {name: value for name, value in named.items() if name not in defaults or value != defaults[name]}


def echoed(spec: dict[str, Any]) -> dict[str, Any]:
    """A specification that was kept, as answers show it: with the defaults that are not kept."""
    flag = {name: Flag.model_fields[name].default for name in _FLAG_SINCE}
    objective: dict[str, Any] = dict.fromkeys(_OBJECTIVE_SINCE)
    return {
        **spec,
        "flag": flag | (spec.get("flag") or {}),
        "objective": objective | (spec.get("objective") or {}),
    }


class Notify(Strict):
    """Who is told, by a signed POST, that the job has ended (docs/webhooks.md)."""

    url: Annotated[str, Field(min_length=1, max_length=2000)] = Field(description="https://host/path")


Method = Literal[
    "ecif",
    "neighbour_influence",
    "clip_score",
    "pair_loss",
    "leave_one_out",
    "contrast_loss",
    "margin",
    "tracin",
    "trak",
    "ekfac_if",
    "magic",
    "lemon",
]
ON_CHECKPOINTS = ("tracin", "margin")
"""The methods that are sums or means over points of a training."""

NEED_VALIDATION: frozenset[str] = frozenset({"neighbour_influence", "tracin", "trak", "ekfac_if", "magic"})


Task = Literal["misalignment", "valuation", "traceback", "removal"]


class JobSettings(Strict):
    """Everything of a job but the dataset that it works on."""

    task: Task
    validation: ValidationDataset | ValidationFraction | ValidationMarks | None = None
    model: NamedModel | None = Field(
        default=None,
        description="for images, also as text: `ViT-B-32`, `ViT-B-32:openai` or an id of `/models`; default "
        f"{DEFAULT_ARCHITECTURE} with {DEFAULT_PRETRAINED}. Absent for embeddings",
    )
    objective: Objective = Objective()
    fit: Fit | None = Field(default=Fit(), description="null takes the model as it is")
    influence: Influence = Influence()
    methods: Annotated[tuple[Method, ...], Field(min_length=1, fail_fast=True)] = ("ecif", "clip_score")
    flag: Flag = Flag()
    queries: Queries | None = Field(default=None, description="for `traceback`: what to explain")
    remove: RemoveKeys | RemoveFlagged | None = Field(default=None, description="for `removal`: which pairs leave")
    verify: bool = Field(default=False, description="for `removal`: refit without them too, and report the gap")
    notify: Notify | None = None
    gate: Gate | None = Field(
        default=None, description="what the data must be like: `summary.gate` says whether they are"
    )
    deadline: Seconds | None = Field(
        default=None,
        description="seconds after it was submitted in which the job must end, or it fails with `deadline`",
    )
    ttl: Seconds | None = Field(
        default=None, description="seconds after its end for which the job is kept; then it is deleted with its results"
    )

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        named: dict[str, Any] = fields(self)
        return {name: value for name, value in named.items() if value is not None or name not in _SINCE}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.objective.scope == "lora" and self.objective.lora is None:
            objective = self.objective.model_copy(update={"lora": Lora()})
            object.__setattr__(self, "objective", objective)  # frozen for everyone else; here it is still being made
        if self.fit is not None and self.fit.epochs is None:
            fit = self.fit.model_copy(update={"epochs": DEFAULT_EPOCHS[self.objective.scope]})
            object.__setattr__(self, "fit", fit)
        used = self.task != "traceback" and bool(set(ON_CHECKPOINTS) & set(self.methods))
        if self.model is not None and self.model.checkpoints is not None and not used:
            methods = " and ".join(ON_CHECKPOINTS)
            raise ValueError(f"model.checkpoints are for the methods {methods}: name one of them, or no checkpoints")
        if self.objective.lora is not None and self.objective.scope != "lora":
            raise ValueError("objective.lora is for objective.scope lora")
        if self.task == "valuation" and "ecif" not in self.methods:
            raise ValueError("task valuation ranks by influence: methods must hold ecif")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods names one of them twice")
        if self.objective.l2 == 0 and self.influence.damping == 0 and self.influence.curvature != "identity":
            raise ValueError("objective.l2 and influence.damping are both 0: the curvature is singular; raise one")
        if (self.task == "traceback") != (self.queries is not None):
            raise ValueError("task traceback needs `queries`, and no other task takes them")
        calibrates = self.task == "misalignment" and isinstance(self.validation, CLEAN)
        if self.flag.by is not None and not calibrates:
            raise ValueError(
                "flag.by is for task misalignment with a validation dataset or marks: their clean pairs calibrate"
            )
        if self.task == "removal" and self.remove is None:
            raise ValueError("task removal needs `remove`: keys, or the flagged pairs of a job")
        if self.task != "removal" and (self.remove is not None or self.verify):
            raise ValueError("`remove` and `verify` belong to task removal")
        return self


class JobSpec(JobSettings):
    """The whole specification of a job, as `POST /jobs` takes it in JSON."""

    dataset: Annotated[str, Field(min_length=1, max_length=200)]


DEFAULT_EMBEDDING_TEMPERATURE = 0.01


def fill_for_kind(spec: JobSpec, dataset: Dataset, validation: Dataset | None) -> JobSpec:
    """The specification with these defaults filled in; unchanged while a dataset is not yet ingested.

    Raises:
        InvalidError: the model or the validation dataset does not fit; `param` names the field.
    """
    kind = dataset.kind
    if validation is not None and kind is not None and validation.kind is not None:
        if kind != validation.kind:
            raise InvalidError(
                "validation_mismatch",
                f"the validation dataset holds {validation.kind}, the dataset {kind}",
                "validation.dataset",
            )
        if dataset.width != validation.width:
            raise InvalidError(
                "validation_mismatch",
                f"the validation embeddings are {validation.width} wide, those of the dataset {dataset.width}",
                "validation.dataset",
            )
    if kind == "images" and spec.model is None:
        model = Model(architecture=DEFAULT_ARCHITECTURE, pretrained=DEFAULT_PRETRAINED)
        return spec.model_copy(update={"model": model})
    if kind == "embeddings":
        if spec.model is not None:
            raise InvalidError("model_not_used", "a dataset of embeddings takes no model: leave it out", "model")
        if spec.objective.scope == "lora":
            reason = "scope lora adapts the layers of a model, and a dataset of embeddings has none: use heads"
            raise InvalidError("model_not_used", reason, "objective.scope")
        if spec.objective.temperature is None:
            objective = spec.objective.model_copy(update={"temperature": DEFAULT_EMBEDDING_TEMPERATURE})
            return spec.model_copy(update={"objective": objective})
    return spec
