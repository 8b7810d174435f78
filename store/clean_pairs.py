"""Where the validation pairs of a job come from: a part of its specification."""

from typing import Annotated

from pydantic import Field

from store.strict import Strict


class ValidationDataset(Strict):
    """Clean pairs of another dataset."""

    dataset: Annotated[str, Field(min_length=1, max_length=200)]


class ValidationFraction(Strict):
    """A random part of the same dataset, held out and not scored."""

    fraction: Annotated[float, Field(gt=0, lt=1)]


class ValidationMarks(Strict):
    """The pairs of this dataset that a person marked `keep` on the random sample of an earlier job, as far as it was
    judged without a gap (`/jobs/{id}/sample`). They are held out and not scored. What was marked in the ranking is no
    part of it: pairs that somebody picked are not like the others."""

    marks: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="the id of the job")


CLEAN = (ValidationDataset, ValidationMarks)
"""What is known to be clean, and calibrates flags."""
