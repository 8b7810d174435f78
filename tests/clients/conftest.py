"""A service for all tests of the client: a real server over a real PostgreSQL, whose worker is called by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ecif_client import Client
from service.app import create_app
from store import blobs
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.clients.cutting import Cutting
from tests.service.exporting import World
from tests.service.serving import in_a_thread
from tests.service_fixtures import EmbeddingZip


@pytest.fixture(scope="session")
def world(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(
        ecif_home=tmp_path_factory.mktemp("world"),
        database_url=new_database(),
        redis_url="redis://127.0.0.1:1/0",
        ecif_device="cpu",
        ecif_heartbeat_seconds=0.1,
    )
    database = Database.from_settings(settings)
    with pytest.MonkeyPatch.context() as patched, TestClient(create_app(settings)) as inside:
        patched.setattr(blobs, "_FILE_PIECE_BYTES", 64 * 1024)
        yield World(inside, settings, database, Blobs.from_settings(settings))
    database.close()


@pytest.fixture(scope="session")
def server(world: World) -> Iterator[str]:
    with in_a_thread(world.settings) as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@pytest.fixture
def cutting(server: str) -> Iterator[Callable[..., Cutting]]:
    """A way to the service that breaks."""
    made: list[Cutting] = []

    def make(**after: Any) -> Cutting:
        made.append(Cutting(server, **after))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def job(world: World, embedding_zip: EmbeddingZip) -> str:
    """One that flags some of 60 pairs of embeddings, by 100 clean ones."""
    clean = world.upload(embedding_zip(100, seed=3))
    return world.job(
        dataset=world.upload(embedding_zip(60, wrong=12)),
        validation={"dataset": clean},
        objective={"batch_size": 32},
        flag={"false_discovery_rate": 0.3},
    )
