"""What a job would take, as `POST /jobs?dry_run=true` answers."""

from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.jobs.submission import Checked
from store.estimates import Extent, PhaseEstimate, estimate, extent
from store.specification import echoed

_MOST = "the most that one of its shards would have"


class PhaseEstimateOut(BaseModel):
    """A phase that the job would have; null is what is not known."""

    phase: str
    unit: str = Field(description="what its progress would count")
    shards: int | None = Field(description="pieces that workers take up, as many at a time as there are workers")
    seconds: float | None = Field(description="from its first shard's begin to its last one's end")
    memory_bytes: int | None = Field(description=f"of its process: {_MOST}")
    device_memory_bytes: int | None = Field(description=f"of a GPU: {_MOST}; null where none was used")
    based_on: int | None = Field(description="so many finished jobs with a comparable phase, the nearest in size")
    reason: str | None = Field(description="in words, why nothing is known")


class EstimateOut(BaseModel):
    """What a job would take on this installation's workers, by finished jobs of the same tenant."""

    spec: dict[str, Any] = Field(description="the whole specification, defaults filled in")
    pairs: int | None = Field(description="in its batches, calibration pairs included; null until a dataset is ready")
    results: int | None
    seconds: float | None = Field(description="of all phases together; null where one of them is not known")
    memory_bytes: int | None = Field(description="the most of all phases that are known")
    device_memory_bytes: int | None = Field(description="the most of all phases that are known")
    phases: list[PhaseEstimateOut]


def estimate_out(session: Session, checked: Checked) -> EstimateOut:
    """The estimate of a specification that was checked."""
    size = extent(checked.spec, checked.dataset, checked.validation, checked.queries)
    phases = estimate(session, checked.spec, checked.named, size)
    return _out(checked.spec.model_dump(mode="json"), size, phases)


def _out(spec: dict[str, Any], size: Extent | None, phases: list[PhaseEstimate]) -> EstimateOut:
    seconds = [phase.seconds for phase in phases if phase.seconds is not None]
    return EstimateOut(
        spec=echoed(spec),
        pairs=size.trained if size else None,
        results=size.results if size else None,
        seconds=round(sum(seconds), 3) if len(seconds) == len(phases) else None,
        memory_bytes=max((one.memory_bytes for one in phases if one.memory_bytes is not None), default=None),
        device_memory_bytes=max(
            (one.device_memory_bytes for one in phases if one.device_memory_bytes is not None), default=None
        ),
        phases=[PhaseEstimateOut(unit=one.phase.unit, **vars(one)) for one in phases],
    )
