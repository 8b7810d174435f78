"""`/metrics`: for Prometheus, and for whoever runs the service."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, ProcessCollector, generate_latest

from service.context import Service, ServiceDep
from service.metrics.requests import CountRequests, Requests
from service.metrics.state import State
from store import gauges
from store.errors import ForbiddenError
from store.tables import DEFAULT_TENANT

router = APIRouter(tags=["health"])


def install(app: FastAPI) -> None:
    """Count the requests of this application, and know where its other figures come from."""
    registry = CollectorRegistry()

    def read() -> gauges.Gauges:
        with app.state.service.database.transaction() as session:
            return gauges.read(session)

    registry.register(State(read))
    ProcessCollector(registry=registry)
    streams = Gauge("ecif_event_streams", "streams of events that are open in this process", registry=registry)
    streams.set_function(lambda: app.state.service.streams.count)
    app.add_middleware(CountRequests, requests=Requests(registry))
    app.state.metrics = registry


def _operator(service: ServiceDep) -> Service:
    if service.tenant != DEFAULT_TENANT:
        raise ForbiddenError(
            "not_the_operator", f"metrics are of all tenants: only a key of tenant {DEFAULT_TENANT!r} reads them"
        )
    return service


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text"}},
)
def metrics(request: Request, service: Annotated[Service, Depends(_operator)]) -> Response:
    """Requests of this process, and jobs, shards and datasets of the whole service. Without keys for this machine, with
    keys for those of tenant `default`."""
    return Response(generate_latest(request.app.state.metrics), media_type=CONTENT_TYPE_LATEST)
