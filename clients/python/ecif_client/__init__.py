"""A client of the service, for programs (`Client`, `AsyncClient`) and for people (the command `ecif`)."""

from ecif_client._async.client import AsyncClient
from ecif_client._sync.client import Client
from ecif_client.errors import (
    ApiError,
    ClientError,
    JobFailedError,
    MissingPackageError,
    UnreachableError,
    UsageError,
    WaitedTooLongError,
)
from ecif_client.selecting import Selection, select

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "JobFailedError",
    "MissingPackageError",
    "Selection",
    "UnreachableError",
    "UsageError",
    "WaitedTooLongError",
    "select",
]
