"""Errors of the domain. They know no HTTP: `service/errors.py` holds the one table to status codes."""

from typing import Any


class DomainError(Exception):
    """Something a user can understand and act on.

    Attributes:
        code: a stable word for programs, for instance `unknown_dataset`.
        message: a sentence for people.
        param: the field, file or row at fault, where there is one.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, self.message, self.param))

    def as_json(self) -> dict[str, str | None]:
        """The form in which jobs and datasets keep it."""
        return {"code": self.code, "message": self.message, "param": self.param}


class NotFoundError(DomainError):
    """No such thing, or not yours."""


class InvalidError(DomainError):
    """The request is well formed and asks for something that cannot be."""


class UnauthenticatedError(DomainError):
    """Nobody that this service knows asks."""


class ForbiddenError(DomainError):
    """Whoever asks may not ask like this."""


class ConflictError(DomainError):
    """The thing is in a state that forbids this now."""


class InProgressError(DomainError):
    """The same request is being worked on at this moment."""


class CursorError(DomainError):
    """A page cursor that was not made by this service for this question."""


class LimitError(DomainError):
    """Too much for one tenant, for now.

    Attributes:
        retry_after: seconds until it is worth asking again.
    """

    def __init__(self, code: str, message: str, retry_after: int) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, self.message, self.retry_after))


class LostLeaseError(Exception):
    """Another attempt has this shard now, or its owner ended: what this attempt made must not be written."""


class WorkCancelledError(Exception):
    """The owner of the shard was cancelled or deleted while it ran."""
