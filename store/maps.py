"""The map of a job: its pairs on a plane, as JSON that a worker wrote and that is only read here."""

from store.blobs import Blobs
from store.errors import NotFoundError


def name_of(job_id: str) -> str:
    """The blob of the map of a job. Every attempt writes the same to it."""
    return f"jobs/{job_id}/map.json"


def read(blobs: Blobs, job_id: str) -> bytes:
    """The map of a job.

    Raises:
        NotFoundError: it has none: it is of another task than misalignment, or of an earlier release.
    """
    try:
        return blobs.get(name_of(job_id))
    except FileNotFoundError:
        raise NotFoundError("no_map", f"job {job_id} has no map: those of task misalignment have one") from None
