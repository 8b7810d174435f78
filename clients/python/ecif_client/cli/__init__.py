"""The command `ecif`."""

from ecif_client.cli.main import main

__all__ = ["main"]
