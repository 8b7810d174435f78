"""`/jobs/{id}/checkpoint`: the model that a removal has edited."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from service.context import HeavyDep, Service, ServiceDep
from service.errors import problem_docs
from store import jobs
from store.errors import ConflictError, NotFoundError
from store.states import JobStatus

router = APIRouter(tags=["results"])

_SAFETENSORS = "application/octet-stream"


@router.get(
    "/jobs/{job_id}/checkpoint",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {_SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}},
            "description": "the model",
        },
        **problem_docs(404, 409),
    },
)
async def get_checkpoint(job_id: str, service: ServiceDep, heavy: HeavyDep) -> StreamingResponse:
    """The edited weights as safetensors, under open_clip's own names; of a dataset of embeddings, its two heads."""
    blob = await heavy.run(_checkpoint_of, service, job_id)
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.safetensors"'}
    return StreamingResponse(heavy.each(service.blobs.stream(blob)), media_type=_SAFETENSORS, headers=headers)


def _checkpoint_of(service: Service, job_id: str) -> str:
    with service.database.transaction() as session:
        job = jobs.get(session, job_id)
        if job.task != "removal":
            raise NotFoundError("no_checkpoint", f"job {job_id} is a {job.task}: only a removal leaves a checkpoint")
        if job.status != JobStatus.SUCCEEDED:
            raise ConflictError(
                "no_results", f"job {job_id} is {job.status}: its checkpoint is there once it succeeded"
            )
        if job.checkpoint_blob is None:
            raise NotFoundError("no_checkpoint", f"job {job_id} left no checkpoint")
        return job.checkpoint_blob
