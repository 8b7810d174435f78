"""`/jobs/{id}/map`: the pairs of a job on a plane."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.context import ServiceDep
from service.errors import problem_docs
from service.jobs.succeeded import succeeded
from store import maps

router = APIRouter(tags=["results"])


class MapOut(BaseModel):
    """Pairs on a plane, a list for each column; where there are many, a random part of them."""

    projection: str = Field(description="how the plane was chosen")
    explained: float = Field(description="the share of the variance of the embeddings that the plane holds")
    pairs: int = Field(description="that were scored; no more than 20,000 of them are on the map")
    rank: list[int]
    x: list[float] = Field(description="from -1 to 1, as y")
    y: list[float]
    suspicion: list[float]
    flagged: list[bool]


@router.get("/jobs/{job_id}/map", response_model=MapOut, responses=problem_docs(404, 409))
def get_map(job_id: str, service: ServiceDep) -> Response:
    """The pairs of a misalignment job by their embeddings, in two dimensions."""
    with service.database.transaction() as session:
        succeeded(session, job_id)
    content = maps.read(service.blobs, job_id)
    return Response(content, media_type="application/json", headers={"Cache-Control": "private, max-age=3600"})
