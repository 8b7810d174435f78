"""`/`: the jobs and datasets that there are, with progress as it happens."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.context import ServiceDep
from service.datasets.schemas import dataset_out
from service.explorer.pages import PageRoute, page
from service.jobs.schemas import jobs_out
from service.pagination import newest_first
from store import datasets, jobs

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_LISTED = 20

Older = Annotated[str | None, Query(max_length=4096)]


def in_words(moment: datetime) -> str:
    """As `27 November, 21:09`, in UTC."""
    return moment.strftime("%-d %B %Y, %H:%M UTC")


@router.get("/")
def overview(request: Request, service: ServiceDep, jobs_from: Older = None, datasets_from: Older = None) -> Response:
    """Jobs and datasets, newest first."""
    with service.database.transaction() as session:
        rows, older_jobs, job_count = newest_first(jobs, session, service.cursors, "jobs", _LISTED, jobs_from)
        listed = jobs_out(session, rows)
        sets, older_datasets, dataset_count = newest_first(
            datasets, session, service.cursors, "datasets", _LISTED, datasets_from
        )
        names = datasets.names(session, {job.dataset_id for job in rows} | {dataset.id for dataset in sets})
    return page(
        request,
        "overview.html",
        jobs=listed,
        job_count=job_count,
        older_jobs=older_jobs,
        datasets=[dataset_out(dataset) for dataset in sets],
        dataset_count=dataset_count,
        older_datasets=older_datasets,
        names=names,
        in_words=in_words,
    )
