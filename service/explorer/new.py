"""`/new`: upload a dataset and start a job. The script of the page sends what `POST /jobs` takes."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.context import ServiceDep
from service.explorer.pages import PageRoute, page
from store import datasets
from store.model_choice import DEFAULT_ARCHITECTURE, DEFAULT_PRETRAINED
from store.nouns import EVERYTHING
from store.states import DatasetStatus

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OFFERED = 100


@router.get("/new")
def new_job(
    request: Request,
    service: ServiceDep,
    dataset: Annotated[str | None, Query(max_length=200)] = None,
    marks: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """What to look at, what to hold it against, and how."""
    with service.database.transaction() as session:
        rows = datasets.page(session, EVERYTHING, limit=_OFFERED, before=None)
    usable = [row for row in rows if row.status != DatasetStatus.FAILED]
    return page(
        request,
        "new.html",
        datasets=[(row.id, row.name or row.filename or row.id, row.pair_count) for row in usable],
        chosen=dataset,
        marks=marks,
        architecture=DEFAULT_ARCHITECTURE,
        pretrained=DEFAULT_PRETRAINED,
    )
