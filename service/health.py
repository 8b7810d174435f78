"""`/healthz` and `/readyz`: liveness depends on nothing, readiness on PostgreSQL."""

from typing import Literal

import redis
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.context import Service
from service.recent import Recent

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Without Redis everything is still accepted and worked on, only a little later: degraded, not unready."""

    status: Literal["ready", "degraded", "unready"]
    postgres: Literal["ok", "unreachable"]
    redis: Literal["ok", "unreachable"]


@router.get("/healthz")
async def healthz() -> Liveness:
    """Whether this process answers."""
    return Liveness()


_FRESH_SECONDS = 1.0


def install(app: FastAPI) -> None:
    """Let this application look at what it depends on at most once a second, however many ask: anybody may."""
    app.state.readiness = Recent(lambda: _look(app.state.service), _FRESH_SECONDS)


def _look(process: Service) -> Readiness:
    postgres: Literal["ok", "unreachable"]
    try:
        process.database.ping()
        postgres = "ok"
    except SQLAlchemyError:
        postgres = "unreachable"
    broker: Literal["ok", "unreachable"]
    try:
        with redis.Redis.from_url(process.settings.redis_url, socket_timeout=1, socket_connect_timeout=1) as connection:
            connection.ping()
        broker = "ok"
    except redis.RedisError:
        broker = "unreachable"
    if postgres != "ok":
        return Readiness(status="unready", postgres=postgres, redis=broker)
    return Readiness(status="ready" if broker == "ok" else "degraded", postgres=postgres, redis=broker)


@router.get("/readyz", responses={503: {"model": Readiness, "description": "PostgreSQL is unreachable"}})
def readyz(request: Request, response: Response) -> Readiness:
    """Whether this process could do its work a second ago or since."""
    readiness: Readiness = request.app.state.readiness()
    if readiness.status == "unready":
        response.status_code = 503
    return readiness
