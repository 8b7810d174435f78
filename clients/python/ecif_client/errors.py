"""What can go wrong, and the exit code that the command ends with."""

from typing import Any


class ClientError(Exception):
    """Anything that this client raises."""

    exit_code = 2


class ApiError(ClientError):
    """The service refuses: its problem document (RFC 9457) says why."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.status = int(problem.get("status", 0))
        self.code = str(problem.get("code", ""))
        errors = "".join(f"\n  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problem.get("errors", []))
        super().__init__(f"{problem.get('detail') or problem.get('title')}{errors}")


class JobFailedError(ClientError):
    """A job or a dataset ended otherwise than hoped for."""

    exit_code = 3


class UnreachableError(ClientError):
    """Nobody answers, or a server that is not well."""

    exit_code = 4


class WaitedTooLongError(ClientError):
    """The time to wait has passed; what was waited for goes on."""

    exit_code = 4
