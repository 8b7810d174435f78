"""What an endpoint is given: the database, the blobs, the bell and the settings of this process."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Annotated, cast

from fastapi import Depends, Request

from doorbell.bell import Bell
from service.access import Caller, Credentials, caller_of
from service.concurrency import Heavy, Streams
from service.limits import UNLIMITED, Incoming, Limits, RequestRate
from service.pagination import Cursors
from service.ranges import ExportSizes
from service.resumable.digests import RunningDigests
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from store.tables import DEFAULT_TENANT

VERSION = "/v1"
"""The prefix under which every path is there a second time."""


@dataclass(frozen=True)
class Service:
    """The parts that live as long as the process."""

    settings: Settings
    database: Database
    blobs: Blobs
    bell: Bell
    cursors: Cursors
    rate: RequestRate
    streams: Streams
    heavy: Heavy
    tenant: str = DEFAULT_TENANT
    caller: Caller | None = None
    digests: RunningDigests = field(default_factory=RunningDigests)
    incoming: Incoming = field(default_factory=Incoming)
    export_sizes: ExportSizes = field(default_factory=ExportSizes)
    limits: Limits = UNLIMITED


def _process(request: Request) -> Service:
    return cast("Service", request.app.state.service)


ProcessDep = Annotated[Service, Depends(_process)]
"""Without a question who asks: for what is open to everybody and tells nothing of anybody."""


def _service(request: Request, process: ProcessDep, credentials: Credentials) -> Service:
    caller = caller_of(request, process.database, process.settings, credentials)
    if caller.limited:
        process.rate.count(caller.tenant)
    limits = Limits.from_settings(process.settings) if caller.limited else UNLIMITED
    database = process.database.of_tenant(caller.tenant)
    return replace(process, database=database, tenant=caller.tenant, caller=caller, limits=limits)


ServiceDep = Annotated[Service, Depends(_service)]
"""For the tenant who asks: the sessions of its database see and make rows of that tenant only."""


async def _heavy(service: ServiceDep) -> AsyncIterator[Heavy]:
    with service.heavy.one_more(service.tenant):
        yield service.heavy


HeavyDep = Annotated[Heavy, Depends(_heavy)]
"""For an endpoint that is heavy: counted for its tenant until the answer has ended, however it ends."""
