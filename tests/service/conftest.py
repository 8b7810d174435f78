"""Jobs that have succeeded, for the tests that only read them."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service.explaining import explained_job
from tests.service.exporting import ROWS, World, images_zip
from tests.service_fixtures import EmbeddingZip


@pytest.fixture(scope="session")
def world(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(
        ecif_home=tmp_path_factory.mktemp("world"),
        database_url=new_database(),
        redis_url="redis://127.0.0.1:1/0",
        ecif_device="cpu",
        ecif_shard_pairs=5,  # so that a dataset has parts
    )
    database = Database.from_settings(settings)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield World(client, settings, database, Blobs.from_settings(settings))
    database.close()


@pytest.fixture(scope="session")
def job(world: World) -> str:
    """On 12 images with captions and columns of every kind."""
    return world.job(dataset=world.upload(images_zip()), model={"architecture": "tiny", "pretrained": None})


@pytest.fixture(scope="session")
def explained(world: World) -> str:
    """On the same images, with results that say why."""
    rows = [row | {"why": "came too"} for row in ROWS]
    return explained_job(
        world, dataset=world.upload(images_zip(rows)), model={"architecture": "tiny", "pretrained": None}
    )


@pytest.fixture(scope="session")
def embeddings(world: World, embedding_zip: EmbeddingZip) -> str:
    """One that flags some of 60 pairs of embeddings without captions, by 100 clean ones."""
    clean = world.upload(embedding_zip(100, seed=3))
    return world.job(
        dataset=world.upload(embedding_zip(60, wrong=12)),
        validation={"dataset": clean},
        objective={"batch_size": 32},
        flag={"false_discovery_rate": 0.3},
    )


@pytest.fixture(scope="session")
def traceback(world: World, embeddings: str) -> str:
    """The three pairs most responsible for each of 100 queries."""
    spec = world.client.get(f"/jobs/{embeddings}").json()["spec"]
    queries = {"dataset": spec["validation"]["dataset"], "top": 3}
    return world.job(task="traceback", dataset=spec["dataset"], queries=queries)


@pytest.fixture(scope="session")
def valuation(world: World, embeddings: str) -> str:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    return world.job(task="valuation", dataset=dataset, validation={"fraction": 0.2})
