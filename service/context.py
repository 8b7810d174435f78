"""What an endpoint is given: the database, the blobs, the bell and the settings of this process."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from doorbell.bell import Bell
from service.cursors import Cursors
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings


@dataclass(frozen=True)
class Service:
    """The parts that live as long as the process."""

    settings: Settings
    database: Database
    blobs: Blobs
    bell: Bell
    cursors: Cursors


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]
