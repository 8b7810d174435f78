"""What every part of a specification is: unknown fields are errors, and nothing changes it."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a specification."""

    model_config = ConfigDict(extra="forbid", frozen=True)
