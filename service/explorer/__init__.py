"""The pages for people: what there is, how far it is, and the pairs of a job, to look at and to judge."""

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """Of all pages."""
    from service.explorer import assets, dataset, job, new, overview, sign_in

    return [overview.router, job.router, dataset.router, new.router, sign_in.router, assets.router]
