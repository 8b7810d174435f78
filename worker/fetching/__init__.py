"""Copies of what datasets refer to: https by pinned public addresses, buckets through obstore."""

from worker.fetching.copying import Fetched, fetch
from worker.fetching.pace import Pace

__all__ = ["Fetched", "Pace", "fetch"]
