"""`/metrics`: for Prometheus, and for whoever runs the service."""

import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.context import VERSION, Service, ServiceDep
from service.recent import Recent
from store import gauges
from store.errors import ForbiddenError
from store.gauges import RECENT, Gauges
from store.phases import progress_unit
from store.tables import DEFAULT_TENANT

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE, _OTHER = "none", "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Requests:
    """By route as it is declared, so that no id and no path of anybody's making becomes a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter("ecif_http_requests", "answers", ("route", "method", "status"), registry=registry)
        self._seconds = Histogram(
            "ecif_http_request_seconds",
            "seconds until an answer began",
            ("route", "method"),
            buckets=_SECONDS,
            registry=registry,
        )

    def seen(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answer."""
        route = (getattr(scope.get("route"), "path", None) or _NO_ROUTE).removeprefix(VERSION)
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        self._count.labels(route, method, str(int(status))).inc()
        self._seconds.labels(route, method).observe(seconds)


class CountRequests:
    """The middleware."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        answered = False

        async def counted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start" and not answered:
                answered = True
                self._requests.seen(scope, message["status"], time.monotonic() - started)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not answered:  # the answer to this is given outside of here
                self._requests.seen(scope, HTTPStatus.INTERNAL_SERVER_ERROR, time.monotonic() - started)
            raise


_FRESH_SECONDS = 5.0

_OF_RECENT_WORK = (
    ("shards", "shards that have ended well", "shards"),
    ("attempts", "attempts that they took", "attempts"),
    ("shard_seconds", "seconds that workers were at them, without attempts that failed", "seconds"),
    ("longest_shard_seconds", "seconds of the longest of them", "longest_seconds"),
    ("memory_bytes", "the most memory that the process of one of them had", "memory_bytes"),
    ("device_memory_bytes", "the most memory of a GPU that one of them had", "device_memory_bytes"),
)


def _of_workers(gauges: Gauges) -> Iterator[Metric]:
    """What workers have done, from their rows: it outlives them, and no worker has to be there to be asked
    (docs/decisions/0033-operators.md)."""
    within = f" in the last {RECENT.total_seconds():.0f} seconds"
    for name, text, attribute in _OF_RECENT_WORK:
        family = GaugeMetricFamily(f"ecif_recent_{name}", text + within, labels=["phase"])
        for phase, work in gauges.work.items():
            value = getattr(work, attribute)
            if value is not None:
                family.add_metric([phase], value)
        yield family
    units = GaugeMetricFamily("ecif_recent_units", "pairs or steps of them" + within, labels=["phase", "unit"])
    for phase, work in gauges.work.items():
        units.add_metric([phase, progress_unit(phase)], work.units)
    yield units
    setbacks = GaugeMetricFamily(
        "ecif_setbacks",
        "how often shards that wait, run or have just ended were set back; vanished: lease lost or worker dead",
        labels=["reason"],
    )
    for reason, times in gauges.setbacks.items():
        setbacks.add_metric([reason], times)
    yield setbacks


class DatabaseGauges(Collector):
    """A collector over figures that `read` fetches."""

    def __init__(self, read: Callable[[], Gauges], clock: Callable[[], float] = time.monotonic) -> None:
        self._recent = Recent(read, _FRESH_SECONDS, clock)

    def describe(self) -> list[Metric]:
        """Nothing: asked for at registration, when there is no reason to read."""
        return []

    def collect(self) -> Iterator[Metric]:
        gauges = self._recent()
        for name, text, by_status in (
            ("ecif_jobs", "jobs by status", gauges.jobs),
            ("ecif_datasets", "datasets by status", gauges.datasets),
        ):
            family = GaugeMetricFamily(name, text, labels=["status"])
            for status, count in by_status.items():
                family.add_metric([status], count)
            yield family
        yield GaugeMetricFamily("ecif_upload_bytes", "bytes of all uploads that are kept", gauges.upload_bytes)
        yield GaugeMetricFamily("ecif_shards_waiting", "shards that any worker may take now", gauges.shards_waiting)
        yield GaugeMetricFamily("ecif_shards_running", "shards that a worker holds", gauges.shards_running)
        yield GaugeMetricFamily(
            "ecif_oldest_wait_seconds", "how long the oldest waiting shard has waited", gauges.oldest_wait_seconds
        )
        yield from _of_workers(gauges)


router = APIRouter(tags=["health"])


def install(app: FastAPI) -> None:
    """Count the requests of this application, and know where its other figures come from."""
    registry = CollectorRegistry()

    def read() -> gauges.Gauges:
        with app.state.service.database.transaction() as session:
            return gauges.read(session)

    registry.register(DatabaseGauges(read))
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
