"""The application: `uvicorn service.app:create_app --factory`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from doorbell.bell import Bell, celery_application
from service import checkpoints, deliveries, diffs, errors, events, health, maps, marks, metrics, models, results
from service.access import HOW_TO_MAKE_A_KEY
from service.concurrency import Heavy, Streams
from service.context import VERSION, Service
from service.datasets import endpoints as datasets_endpoints
from service.datasets import images
from service.documentation import document
from service.explorer import routers as explorer_routers
from service.exports import endpoints as exports_endpoints
from service.html_pages import HtmlPolicy, install_documentation
from service.jobs import endpoints as jobs_endpoints
from service.limits import RequestRate
from service.pagination import Cursors
from service.problems import endpoints as problems_endpoints
from service.report import endpoints as report_endpoints
from service.request_ids import RequestIds, log_request_ids
from service.resumable import endpoints as resumable_endpoints
from service.resumable.protocol import TusHeaders
from store import api_keys
from store.blobs import Blobs
from store.database import Database
from store.settings import CODE_VERSION, Settings, get_settings
from store.shared_secrets import cursor_key

logger = logging.getLogger("uvicorn.error")  # the one that is seen wherever the API runs

_DESCRIPTION = """
Which image-text pairs are hurting my CLIP model? Upload a dataset, submit a job, read the ranking.
A **negative** influence is harmful: removing the pair would lower the validation loss.
"""


class _NoNul:
    """PostgreSQL keeps no NUL, and no path or query of ours needs one: turned away at the door."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (b"%00" in scope["query_string"] or "\x00" in scope["path"]):
            answer: JSONResponse = errors.problem(HTTPStatus.BAD_REQUEST, "nul_in_url", "the URL holds a NUL character")
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The HTTP front for these settings; those of the environment where none are given."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database.from_settings(settings, statement_seconds=settings.ecif_statement_seconds)
        bell = Bell(celery_application(settings))

        def fetch_cursor_key() -> bytes:
            with database.transaction() as session:
                return cursor_key(session)

        app.state.service = Service(
            settings=settings,
            database=database,
            blobs=Blobs.from_settings(settings),
            bell=bell,
            cursors=Cursors(fetch_cursor_key),
            rate=RequestRate(settings.ecif_requests_per_minute),
            streams=(streams := Streams(settings.ecif_max_streams)),
            heavy=Heavy(settings.ecif_max_heavy_requests),
        )
        log_request_ids()
        _log_who_has_access(database, settings)
        with streams.close_on_signals():
            yield
        bell.close()
        database.close()

    app = FastAPI(
        title="ECIF",
        version=CODE_VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    for pages in explorer_routers():  # before the documentation, which would lead from `/` to itself
        app.include_router(pages)
    install_documentation(app)
    app.add_middleware(HtmlPolicy)
    app.add_middleware(_NoNul)
    metrics.install(app)
    health.install(app)
    app.add_middleware(TusHeaders, prefixes=("", VERSION))
    errors.install(app)
    _mount(app)
    document(app)
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: RequestIds(build())  # type: ignore[method-assign]  # outside all others
    return app


def _mount(app: FastAPI) -> None:
    """Mount everything twice, at the bare paths and under `/v1`; the document shows each operation once."""
    whole = APIRouter()
    for router in (
        datasets_endpoints.router,
        images.router,
        models.router,
        resumable_endpoints.router,
        jobs_endpoints.router,
        events.router,
        deliveries.router,
        results.router,
        marks.router,
        maps.router,
        diffs.router,
        exports_endpoints.router,
        report_endpoints.router,
        checkpoints.router,
        metrics.router,
    ):
        whole.include_router(router, responses=errors.problem_docs(400, 401, 403, 422, 429, 500, 503))
    for router in (health.router, problems_endpoints.router):
        whole.include_router(router, responses=errors.problem_docs(400))
    app.include_router(whole)
    app.include_router(whole, prefix=VERSION, include_in_schema=False)
    app.add_route(f"{VERSION}/openapi.json", lambda _: JSONResponse(app.openapi()), include_in_schema=False)


def _log_who_has_access(database: Database, settings: Settings) -> None:
    try:
        with database.transaction() as session:
            keys = api_keys.any_made(session)
    except SQLAlchemyError:
        return  # /readyz reports it; each request is asked for its key anyway
    if not keys:
        whom = "everybody who reaches it" if settings.ecif_open else "every user of this machine, and to nobody else"
        logger.warning("there are no API keys: open to %s. %s", whom, HOW_TO_MAKE_A_KEY)
