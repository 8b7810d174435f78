"""The world of the tests: one real PostgreSQL for the run, a migrated database of its own for each test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported: two runs side by side must not fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psycopg
import pytest
from sqlalchemy.engine import make_url
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from migrations.upgrade import upgrade
from standalone import servers
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings

pytest_plugins = ["tests.s3_fixtures", "tests.service_fixtures"]

_ONE_AT_A_TIME = ("chaos", "end_to_end", "hostile", "standalone")
_LONG = (*_ONE_AT_A_TIME, "benchmarks")


class _ByFile(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Files go to parallel runs whole, as fixtures are shared in a file; what starts whole stacks of processes goes to
    one run, as two stacks would starve each other."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "machine" if Path(file).parent.name in _ONE_AT_A_TIME else file


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Where pytest-timeout is missing, as on a machine lent for its GPU, its setting is no error."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "of a test, in seconds; not watched here")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Which tests of a parallel run go together, in the order of their collection."""
    config.option.loadscopereorder = False
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no parallel run waits for another at the end."""
    items.sort(key=lambda item: item.path.parent.name not in _LONG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `cuda` runs where there is such a device, and says so where there is none."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and this machine has none")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL whose database `template_ecif` is migrated."""
    with servers.postgres(tmp_path_factory.mktemp("postgres")) as url:
        admin = _plain(url)
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("CREATE DATABASE template_ecif")
        upgrade(_named(url, "template_ecif"))
        yield url


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _named(url: str, database: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg", database=database).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def new_database(postgres_url: str) -> Callable[[], str]:
    """Makes an empty migrated database and returns its URL."""
    made = 0

    def make() -> str:
        nonlocal made
        made += 1
        name = f"test_{made}"
        with psycopg.connect(_plain(postgres_url), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template_ecif")
        return _named(postgres_url, name)

    return make


@pytest.fixture
def settings(new_database: Callable[[], str], tmp_path: Path) -> Settings:
    """Settings of a service of its own. Nothing answers at its Redis: the bell rings into the void."""
    return Settings(
        ecif_home=tmp_path,
        database_url=new_database(),
        redis_url="redis://127.0.0.1:1/0",
        ecif_heartbeat_seconds=0.2,
        ecif_stream_seconds=0.5,
        ecif_device="cpu",
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.from_settings(settings)
    yield database
    database.close()


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs.from_settings(settings)
