"""The whole service as real processes: API, worker, sweeper, PostgreSQL, Redis. Started once for all these tests."""

from collections.abc import Iterator

import httpx
import pytest

from standalone.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {
        "OMP_NUM_THREADS": "1",
        "ECIF_LEASE_SECONDS": "3",
        "ECIF_HEARTBEAT_SECONDS": "0.5",
        "ECIF_SWEEP_SECONDS": "1",
        "ECIF_GRACE_SECONDS": "1",
        "ECIF_PRIVATE_RECEIVERS": "true",
        "ECIF_DEVICE": "cpu",
    }
    with Stack(tmp_path_factory.mktemp("stack"), workers=2, environment=environment) as stack:
        yield stack


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as http:
        yield http
