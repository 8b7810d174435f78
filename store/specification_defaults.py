"""Defaults and checks that depend on what a dataset turned out to hold: images or embeddings."""

from store.errors import InvalidError
from store.specification import DEFAULT_ARCHITECTURE, DEFAULT_PRETRAINED, JobSpec, Model
from store.tables import Dataset

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
