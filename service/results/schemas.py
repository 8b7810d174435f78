"""What a scored pair looks like from outside."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

SortKey = Literal[
    "rank",
    "influence",
    "positive_influence",
    "negative_influence",
    "relative_influence",
    "self_influence",
    "clip_score",
    "pair_loss",
    "tracin",
    "trak",
    "ekfac_if",
    "lemon",
    "suspicion",
    "p_value",
    "q_value",
]
"""`store.results.SORTS`, as a type; a test holds them equal."""


class Order(StrEnum):
    """Which end comes first."""

    ASC = "asc"
    DESC = "desc"


class ResultOut(BaseModel):
    """One pair's scores. What was not computed is null."""

    rank: int = Field(description="1 is the first that a person should look at")
    query: str | None = Field(default=None, description="of a traceback: the query that the pair is responsible for")
    key: str | None
    caption: str | None
    image_url: str | None
    influence: float | None = Field(
        description="change of the mean validation loss if the pair were removed: negative is harmful"
    )
    positive_influence: float | None = Field(description="the part of it from the pair's own match")
    negative_influence: float | None = Field(description="the part of it from the pair as a negative of others")
    relative_influence: float | None
    self_influence: float | None = Field(description="how hard the pair pulls the model; never negative")
    clip_score: float | None = Field(description="cosine of image and caption")
    pair_loss: float | None = Field(description="the pair's own contrastive loss")
    tracin: float | None = Field(description="as influence: positive role, identity curvature, over the checkpoints")
    trak: float | None = Field(description="as influence: positive-role margins, random projection, Fisher inverse")
    ekfac_if: float | None = Field(description="as influence: positive role, EKFAC curvature")
    lemon: float | None = Field(description="disagreement with the nearest neighbours; high is suspicious")
    suspicion: float | None = Field(description="how likely the pair is misaligned; `summary.ranked_by` says how")
    p_value: float | None
    q_value: float | None
    flagged: bool | None
