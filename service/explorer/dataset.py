"""`/datasets/{id}/explore`: what came in, what was turned away and why, and what is there twice."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from service.context import ServiceDep
from service.datasets.schemas import dataset_out
from service.explorer.overview import in_words
from service.explorer.pages import PageRoute, page
from service.pagination import Cursor
from store import datasets, duplicates, pairs
from store.states import DuplicateKind
from store.tables import Pair

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ON_A_PAGE = 48
_SMALL = 112

View = Literal["pairs", "rejected", "image", "pixels", "caption", "near_image", "near_caption"]


@router.get("/datasets/{dataset_id}/explore")
def explore_dataset(
    dataset_id: str,
    request: Request,
    service: ServiceDep,
    show: Annotated[str, Query(max_length=20)] = "pairs",
    cursor: Cursor = None,
) -> Response:
    """Pairs in the order of the upload, or the rejected, or those that equal another."""
    question = {"explore": dataset_id, "show": show}
    place = service.cursors.read(question, cursor) if cursor else None
    kinds = [kind.value for kind in DuplicateKind]
    with service.database.transaction() as session:
        dataset = datasets.get(session, dataset_id)
        rows: list[tuple[Pair, str | None]]
        if show in kinds:
            after = (int(place[0]), int(place[1])) if place else None
            listed = duplicates.page(session, dataset.number, DuplicateKind(show), limit=_ON_A_PAGE + 1, after=after)
            rows = [(row.pair, row.first_key) for row in listed]
            places = [[row.first, row.pair.position] for row in listed]
        else:
            position = int(place[0]) if place else None
            rejected = show == "rejected"
            pages = pairs.page(session, dataset.number, limit=_ON_A_PAGE + 1, after=position, rejected=rejected)
            rows = [(pair, None) for pair in pages]
            places = [[pair.position] for pair in pages]
    following = service.cursors.make(question, places[_ON_A_PAGE - 1]) if len(rows) > _ON_A_PAGE else None
    counted = (dataset.summary or {}).get("duplicates", {})
    views = [("pairs", "Pairs", dataset.pair_count), ("rejected", "Rejected", dataset.rejected_count)]
    views += [
        (kind, f"Equal in {kind.replace('_', ' ')}", counted[kind]["pairs"])
        for kind in kinds
        if counted.get(kind, {}).get("pairs")
    ]
    return page(
        request,
        "dataset.html",
        dataset=dataset_out(dataset),
        name=dataset.name or dataset.filename or dataset.id,
        with_images=dataset.kind == "images",
        show=show,
        views=views,
        pairs=rows[:_ON_A_PAGE],
        small=_SMALL,
        following=following,
        in_words=in_words,
    )
