"""Turning a specification into a promised job: everything that stops a job from starting is checked here."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.labels import Labels
from store import datasets, job_gates, jobs, marks, models
from store.catalogue import HUB_PREFIX, HubRules, check_model, check_size, loss_of
from store.clean_pairs import ValidationDataset, ValidationMarks
from store.errors import InvalidError, NotFoundError
from store.estimates import extent
from store.job_phases import baselines
from store.losses import with_loss
from store.magic import check_magic, check_magic_size
from store.model_choice import Model
from store.nouns import new_id
from store.settings import CODE_VERSION, Settings
from store.specification import NEED_VALIDATION, JobSpec, RemoveFlagged, fill_for_kind
from store.states import JobStatus
from store.tables import Dataset, Job


def _check_flagged_by(session: Session, spec: JobSpec, remove: RemoveFlagged) -> None:
    try:
        earlier = jobs.get(session, remove.job)
    except NotFoundError as error:
        raise InvalidError("unknown_job", error.message, "remove.job") from None
    if earlier.dataset_id != spec.dataset:
        raise InvalidError("other_dataset", f"job {remove.job} worked on dataset {earlier.dataset_id}", "remove.job")
    if earlier.status != JobStatus.SUCCEEDED or not earlier.flagged_count:
        raise InvalidError("nothing_flagged", f"job {remove.job} is {earlier.status} and flagged no pair", "remove.job")


def _check_marks(session: Session, spec: JobSpec, validation: ValidationMarks) -> None:
    param = "validation.marks"
    try:
        earlier = jobs.get(session, validation.marks)
    except NotFoundError as error:
        raise InvalidError("unknown_job", error.message, param) from None
    if earlier.dataset_id != spec.dataset:
        raise InvalidError("other_dataset", f"job {earlier.id} worked on dataset {earlier.dataset_id}", param)
    dataset = datasets.number(session, earlier.dataset_id)
    if not marks.clean_rows(session, earlier, dataset):
        raise InvalidError(
            "no_marks",
            f"no pair of the random sample of job {earlier.id} was kept, from its first on without a gap; marks of the "
            f"ranking do not count: judge the sample at /jobs/{earlier.id}/explore/sample",
            param,
        )


def _check_leave_one_out(spec: JobSpec) -> None:
    """It needs a solve for every pair, which is had for two heads in closed form and not from random probes."""
    objective = spec.objective
    others = {
        f"objective.scope {objective.scope}": objective.scope != "heads",
        "objective.train_temperature": objective.train_temperature,
        f"objective.partitions {objective.partitions}": objective.partitions > 1,
        f"influence.curvature {spec.influence.curvature}": spec.influence.curvature != "gauss_newton",
    }
    if named := [name for name, there in others.items() if there]:
        raise InvalidError(
            "leave_one_out_not_available",
            "leave_one_out is of heads with a fixed temperature, in one partition, by gauss_newton: "
            f"not with {', '.join(named)}",
            "methods",
        )


def _check_kept_models(session: Session, model: Model) -> None:
    """The models that were brought, the job's own and its checkpoints. What only a worker can tell of their
    architectures, its plan does (`worker/analysis/checkpoints.py`)."""
    architecture = model.architecture
    if model.id is not None:
        architecture = models.usable(session, model.id, "model.id").architecture
    for checkpoint_id in model.checkpoints or ():
        other = models.usable(session, checkpoint_id, "model.checkpoints").architecture
        # A name and a configuration may describe the same, and so may a repository.
        by_name = isinstance(architecture, str) and isinstance(other, str) and not architecture.startswith(HUB_PREFIX)
        if by_name and architecture != other:
            raise InvalidError(
                "other_architecture",
                f"checkpoint {checkpoint_id} is a {other}, and the model a {architecture}: they must be alike",
                "model.checkpoints",
            )


def _loss_of(session: Session, model: Model | None, dataset: Dataset) -> str | None:
    """What the model of a job was trained with, as far as is known before it is loaded."""
    if model is None:
        return "softmax" if dataset.kind == "embeddings" else None
    if model.id is None:
        return loss_of(model.architecture) if model.architecture is not None else None
    architecture = models.usable(session, model.id, "model.id").architecture
    # Its checkpoint may bring a bias that the architecture has none of.
    return "sigmoid" if architecture is not None and loss_of(architecture) == "sigmoid" else None


@dataclass(frozen=True)
class Checked:
    """A specification that can be promised, its defaults filled in, with the datasets that it names."""

    spec: JobSpec
    dataset: Dataset
    validation: Dataset | None
    queries: Dataset | None

    @property
    def named(self) -> list[Dataset]:
        return [dataset for dataset in (self.dataset, self.validation, self.queries) if dataset is not None]


def check(session: Session, spec: JobSpec, settings: Settings) -> Checked:
    """Everything that stops a job from being promised whose datasets exist already.

    Raises:
        InvalidError: a dataset is unknown or failed, or the specification does not fit them; `param` names the field.
    """
    dataset = datasets.usable(session, spec.dataset, "dataset")
    validation: Dataset | None = None
    if isinstance(spec.validation, ValidationDataset):
        if spec.validation.dataset == spec.dataset:
            raise InvalidError(
                "same_dataset",
                'validation names the dataset itself: name another one, or {"fraction": 0.1} to hold a part out',
                "validation.dataset",
            )
        validation = datasets.usable(session, spec.validation.dataset, "validation.dataset")
    if isinstance(spec.validation, ValidationMarks):
        _check_marks(session, spec, spec.validation)
    if spec.task == "valuation" and spec.validation is None:
        raise InvalidError(
            "validation_required",
            "valuation measures influence on a validation loss: name a validation dataset or a fraction",
            "validation",
        )
    needing = sorted(NEED_VALIDATION.intersection(spec.methods))
    if needing and spec.validation is None:
        raise InvalidError(
            "validation_required",
            f"{', '.join(needing)}: measured on a validation loss: name a validation dataset or a fraction",
            "validation",
        )
    if "leave_one_out" in spec.methods:
        _check_leave_one_out(spec)
    if "magic" in baselines(spec):
        check_magic(spec)
    inverting = sorted({"ekfac_if", "trak"}.intersection(spec.methods))
    if inverting and spec.objective.l2 == 0 and spec.influence.damping == 0:
        raise InvalidError(
            "singular_curvature",
            f"{', '.join(inverting)}: objective.l2 and influence.damping are both 0: raise one",
            "influence.damping",
        )
    if isinstance(spec.remove, RemoveFlagged):
        _check_flagged_by(session, spec, spec.remove)
    queries: Dataset | None = None
    if spec.queries is not None:
        queries = datasets.usable(session, spec.queries.dataset, "queries.dataset")
    if spec.model is not None and spec.model.architecture is not None:
        check_model(spec.model.architecture, spec.model.pretrained)
        check_size(spec.model.architecture, settings.ecif_max_model_bytes)
        HubRules.of(session, settings).check(spec.model.architecture, "model.architecture")
    if spec.model is not None:
        _check_kept_models(session, spec.model)
    job_gates.check(session, spec)
    spec = fill_for_kind(spec, dataset, validation)
    there = extent(spec, dataset, validation, queries)
    if "magic" in baselines(spec) and dataset.kind == "embeddings" and there is not None:
        check_magic_size(spec, there.trained, 2 * there.width**2)
    return Checked(with_loss(spec, _loss_of(session, spec.model, dataset)), dataset, validation, queries)


def submit(session: Session, spec: JobSpec, labels: Labels, settings: Settings) -> Job:
    """Promise a job; raises as `check` does."""
    checked = check(session, spec, settings)
    spec, dataset, validation, queries = checked.spec, checked.dataset, checked.validation, checked.queries
    return jobs.create(
        session,
        job_id=new_id("job"),
        task=spec.task,
        spec=spec.model_dump(mode="json"),
        code_version=CODE_VERSION,
        dataset_id=dataset.id,
        validation_dataset_id=validation.id if validation else None,
        queries_dataset_id=queries.id if queries else None,
        dataset_digest=dataset.digest,
        model_id=spec.model.id if spec.model is not None else None,
        checkpoint_ids=spec.model.checkpoints if spec.model is not None else None,
        deadline=spec.deadline,
        name=labels.name or None,
        metadata=labels.metadata,
    )
