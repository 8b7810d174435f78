"""Which loss a job has, as far as that is known before its model is loaded (docs/decisions/0028-sigmoid-losses.md)."""

from store.errors import InvalidError
from store.specification import JobSpec


def bias_missing() -> InvalidError:
    """Of a job with the sigmoid loss on a model that was trained with another, or on embeddings."""
    return InvalidError(
        "missing_field",
        "objective.loss sigmoid needs the bias of the logits where the model brings none: name that of the model that "
        "was trained with this loss, with its objective.temperature",
        "objective.logit_bias",
    )


def with_loss(spec: JobSpec, loss: str | None) -> JobSpec:
    """The specification of a job whose model is known to be trained with this loss; unchanged where the job names one.

    What is taken to be softmax is not filled in: a checkpoint may yet bring a bias.

    Raises:
        InvalidError: the sigmoid loss of a model that is known to have no bias; `param` names the field.
    """
    if spec.objective.loss == "sigmoid" and spec.objective.logit_bias is None and loss == "softmax":
        raise bias_missing()
    if spec.objective.loss is not None or loss != "sigmoid":
        return spec
    return spec.model_copy(update={"objective": spec.objective.model_copy(update={"loss": loss})})
