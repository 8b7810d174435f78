"""The application: `uvicorn service.app:create_app --factory`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from doorbell.application import celery_application
from doorbell.bell import Bell
from service import health, problems
from service.checkpoints import endpoints as checkpoints_endpoints
from service.context import Service
from service.cursors import Cursors
from service.datasets import endpoints as datasets_endpoints
from service.jobs import endpoints as jobs_endpoints
from service.problem_docs import Problem
from service.results import endpoints as results_endpoints
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings, get_settings
from store.shared_secrets import cursor_key
from store.specification import JobSettings, JobSpec
from store.version import CODE_VERSION

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
            answer: JSONResponse = problems.problem(
                HTTPStatus.BAD_REQUEST, "nul_in_url", "the URL holds a NUL character"
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The HTTP front for these settings; those of the environment where none are given."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database.from_settings(settings)
        bell = Bell(celery_application(settings))

        def fetch_cursor_key() -> bytes:
            with database.transaction() as session:
                return cursor_key(session)

        app.state.service = Service(settings, database, Blobs.from_settings(settings), bell, Cursors(fetch_cursor_key))
        yield
        bell.close()
        database.close()

    app = FastAPI(title="ECIF", version=CODE_VERSION, description=_DESCRIPTION, lifespan=lifespan)
    app.add_middleware(_NoNul)
    problems.install(app)
    for router in (
        datasets_endpoints.router,
        jobs_endpoints.router,
        results_endpoints.router,
        checkpoints_endpoints.router,
        health.router,
    ):
        app.include_router(router)
    _document_hand_read_bodies(app)
    return app


def _document_hand_read_bodies(app: FastAPI) -> None:
    """Add the schemas of the bodies that endpoints read themselves, and of problems, to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _, extra = models_json_schema(
                [(JobSpec, "validation"), (JobSettings, "validation"), (Problem, "serialization")],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"].update(extra["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
