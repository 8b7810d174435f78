"""What there is in the database, for Prometheus: read at most once in a few seconds, however many ask."""

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store.gauges import Gauges

_FRESH_SECONDS = 5.0


class State(Collector):
    """A collector over figures that `read` fetches."""

    def __init__(self, read: Callable[[], Gauges], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._known: tuple[float, Gauges] | None = None

    def describe(self) -> list[Metric]:
        """Nothing: asked for at registration, when there is no reason to read."""
        return []

    def collect(self) -> Iterator[Metric]:
        gauges = self._fresh()
        for name, text, by_status in (
            ("ecif_jobs", "jobs by status", gauges.jobs),
            ("ecif_datasets", "datasets by status", gauges.datasets),
        ):
            family = GaugeMetricFamily(name, text, labels=["status"])
            for status, count in by_status.items():
                family.add_metric([status], count)
            yield family
        yield GaugeMetricFamily("ecif_upload_bytes", "bytes of all uploads that are kept", gauges.upload_bytes)
        yield GaugeMetricFamily("ecif_shards_waiting", "shards that any worker may take now", gauges.shards_waiting)
        yield GaugeMetricFamily("ecif_shards_running", "shards that a worker holds", gauges.shards_running)
        yield GaugeMetricFamily(
            "ecif_oldest_wait_seconds", "how long the oldest waiting shard has waited", gauges.oldest_wait_seconds
        )

    def _fresh(self) -> Gauges:
        with self._lock:
            if self._known is None or self._clock() - self._known[0] > _FRESH_SECONDS:
                self._known = (self._clock(), self._read())
            return self._known[1]
