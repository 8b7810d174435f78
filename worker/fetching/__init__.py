"""Copies of what datasets refer to: https by pinned public addresses, buckets through obstore."""

from worker.fetching.copying import Fetched, fetch

__all__ = ["Fetched", "fetch"]
