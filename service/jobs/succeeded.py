"""Jobs that have results: what everything that shows some asks first."""

from sqlalchemy.orm import Session

from store import jobs
from store.errors import ConflictError
from store.states import JobStatus
from store.tables import Job


def succeeded(session: Session, job_id: str, what: str = "results are") -> Job:
    """A job that has results.

    Args:
        what: what is there once it has succeeded, for the error.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not succeeded.
    """
    job = jobs.get(session, job_id)
    if job.status != JobStatus.SUCCEEDED:
        raise ConflictError("no_results", f"job {job_id} is {job.status}: {what} there once it has succeeded")
    return job
