"""What keeps the service from running on this machine. Each message is written for the person at the terminal."""

from pathlib import Path


class StandaloneError(Exception):
    """The service cannot start or go on here."""


class HomeInUseError(StandaloneError):
    """Another process already keeps its data in this folder."""

    def __init__(self, home: Path, owner: str) -> None:
        super().__init__(f"{home} is in use by another process ({owner}): end it, or choose a folder with ECIF_HOME")


class PortTakenError(StandaloneError):
    """Somebody else listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} on 127.0.0.1 is taken: choose another, for instance PORT={port + 1} make serve")


class DidNotStartError(StandaloneError):
    """A child ended, or did not answer in time, while everything was being started."""

    def __init__(self, name: str, what: str, log: Path, tail: str) -> None:
        super().__init__(f"{name} {what}; the end of {log}:\n{tail or '(empty)'}")


class StopRequestedError(StandaloneError):
    """Somebody asked for an end before everything was up."""
