"""A client of the service, for programs (`Client`) and for people (the command `ecif`)."""

from ecif_client.client import Client
from ecif_client.errors import ApiError, JobFailedError, UnreachableError, WaitedTooLongError

__all__ = ["ApiError", "Client", "JobFailedError", "UnreachableError", "WaitedTooLongError"]
