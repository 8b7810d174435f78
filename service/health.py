"""`/healthz` and `/readyz`: liveness depends on nothing, readiness on PostgreSQL."""

from typing import Literal

import redis
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.context import ProcessDep

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


@router.get("/readyz", responses={503: {"model": Readiness, "description": "PostgreSQL is unreachable"}})
def readyz(process: ProcessDep, response: Response) -> Readiness:
    """Whether this process can do its work."""
    try:
        process.database.ping()
        postgres: Literal["ok", "unreachable"] = "ok"
    except SQLAlchemyError:
        postgres = "unreachable"
        response.status_code = 503
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
