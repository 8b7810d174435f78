"""Which phases a job has, by what it asks for, and how passes over its pairs are cut into shards: what the workers do
and what an estimate beforehand counts on."""

import math

from store.phases import Phase
from store.specification import JobSpec

OF_ALL_PAIRS = ("lemon", "contrast_loss", "margin")
"""The methods that hold a pair against all others, and so are no matter of batches."""

BASELINES = ("tracin", "trak", "ekfac_if", *OF_ALL_PAIRS)
"""The methods that are prepared apart before batches are scored."""

COLUMNS_OF = {
    "ecif": ("influence", "positive_influence", "negative_influence", "self_influence"),
    "clip_score": ("clip_score",),
    "pair_loss": ("pair_loss",),
    "leave_one_out": ("leave_one_out",),
    "neighbour_influence": ("neighbour_influence",),
    **{method: (method,) for method in BASELINES},
}
"""The scores that a method gives every pair."""

_OF_TRACEBACK = ("relative_influence", "influence", "positive_influence", "negative_influence")

PAIRS_A_SHARD = 16_384
"""About, of whole batches."""

ROWS_A_SHARD = 100_000
"""Of results that are loaded."""


def columns_of(spec: JobSpec) -> set[str]:
    """The scores that the results of a job have; a p-value only where clean pairs calibrate."""
    if spec.task == "traceback":
        return set(_OF_TRACEBACK)
    columns = {name for method in spec.methods for name in COLUMNS_OF[method]}
    return columns | {"suspicion", "q_value", "p_value"} if spec.task == "misalignment" else columns


def inverts_curvature(spec: JobSpec) -> bool:
    """Whether a job inverts the curvature that `influence` names."""
    solving = {"ecif", "leave_one_out", "neighbour_influence"}
    return bool(solving & set(spec.methods)) or spec.task in ("removal", "traceback")


def needs_ekfac(spec: JobSpec) -> bool:
    """Whether a job needs the Kronecker factors, for its own curvature or for a baseline's."""
    return "ekfac_if" in baselines(spec) or (inverts_curvature(spec) and spec.influence.curvature == "ekfac")


def needs_projection(spec: JobSpec) -> bool:
    """Whether a job keeps every pair's projected gradients."""
    return inverts_curvature(spec) and spec.influence.curvature == "projected"


def baselines(spec: JobSpec) -> list[str]:
    """The baselines that a job prepares."""
    return [method for method in BASELINES if method in spec.methods and spec.task != "traceback"]


def expected(spec: JobSpec) -> list[Phase]:
    """The phases of a job whose specification is filled in, in order."""
    ekfac = needs_ekfac(spec)
    has = {
        Phase.PLAN: True,
        Phase.ENCODE: spec.model is not None,
        Phase.FIT: spec.fit is not None,
        Phase.FACTORS: ekfac,
        Phase.BASES: ekfac,
        Phase.EIGENVALUES: ekfac,
        Phase.PROJECT: needs_projection(spec),
        Phase.CURVATURE: inverts_curvature(spec),
        Phase.BASELINES: bool(baselines(spec)),
        Phase.EDIT: spec.task == "removal",
        Phase.TRACE: spec.task == "traceback",
        Phase.SCORE: spec.task != "traceback",
        Phase.DETECT: spec.task == "misalignment",
        Phase.RANK: True,
        Phase.LOAD: True,
    }
    return [phase for phase, there in has.items() if there]


def batches_a_shard(batch_size: int, pairs: int = PAIRS_A_SHARD) -> int:
    """How many whole batches make a shard of about `pairs`."""
    return max(1, pairs // batch_size)


def shards_of_a_pass(pairs: int, batch_size: int, partitions: int) -> int:
    """Into how many shards a pass over all batches of all partitions is cut."""
    return partitions * math.ceil(math.ceil(pairs / batch_size) / batches_a_shard(batch_size))
