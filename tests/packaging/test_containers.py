"""The container files agree with the code and with each other."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from doorbell.bell import Bell, celery_application
from migrations.upgrade import upgrade
from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings
from tests.service_fixtures import ImageZip
from worker.attempts.attempt import Workplace, work_once
from worker.sweeper import sweep

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_DOCKERFILE = (_ROOT / "Dockerfile").read_text()
_OWN = ("doorbell", "ecif", "encoders", "migrations", "readers", "service", "standalone", "store", "worker")
_IMAGES = {"api": "service", "worker": "worker"}
"""Each image, and the requirements that it installs."""


def _pins(name: str) -> dict[str, str]:
    lines = (_ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    found = (re.match(r"([A-Za-z0-9_.-]+)==([^ ;\\]+)", line) for line in lines)
    return {_normal(match[1]): match[2] for match in found if match}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _stage(name: str) -> str:
    """The lines of one build stage."""
    return _DOCKERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def _rooms(image: str) -> list[str]:
    return [words[1] for words in _copies(_stage(f"build-{image}")) if words[1] in _OWN]


def _copies(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.startswith("COPY ")]


def _compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    return content


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_its_linter() -> None:
    _run(_BIN / "hadolint", "--config", ".hadolint.yaml", "Dockerfile")


def test_the_compose_file_follows_its_schema_and_style() -> None:
    _run(_BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    _run(_BIN / "yamllint", "--strict", "docker-compose.yml")


def test_the_api_image_holds_no_torch_and_the_worker_image_does() -> None:
    assert not [name for name in _pins("service") if name.startswith(("torch", "nvidia", "open-clip", "triton"))]
    assert "torch" in _pins("worker")


@pytest.mark.parametrize("name", ["service", "worker"])
def test_images_install_what_was_tested(name: str) -> None:
    tested = _pins("dev")
    assert {pin: version for pin, version in _pins(name).items() if tested.get(pin) != version} == {}


@pytest.mark.parametrize("image", _IMAGES)
def test_everything_that_is_copied_exists_and_is_sent_to_the_build(image: str) -> None:
    sent = {line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for _, *sources, _target in _copies(_stage("build") + _stage(f"build-{image}")):
        for source in sources:
            assert (_ROOT / source).exists(), source
            assert source.split("/")[0] in sent, source


def _imports(rooms: list[str]) -> dict[str, str]:
    """Top-level modules that the rooms import, wherever in the file, and one file that does."""
    found: dict[str, str] = {}
    for room in rooms:
        for file in (_ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                found |= {name.split(".")[0]: str(file.relative_to(_ROOT)) for name in names}
    found.pop("_typeshed", None)  # for type checkers only: nobody installs it
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names}


@pytest.mark.parametrize(("image", "requirements"), _IMAGES.items())
def test_an_image_holds_everything_that_its_code_imports(image: str, requirements: str) -> None:
    rooms, installed, distributions = _rooms(image), _pins(requirements), packages_distributions()
    missing = {}
    for module, file in _imports(rooms).items():
        carriers = {_normal(each) for each in distributions.get(module, [])}
        if module not in rooms and not carriers & installed.keys():
            missing[module] = file
    assert missing == {}


def _modules_of(command: list[str]) -> list[str]:
    """The modules that a command line names: `python -m M`, `uvicorn M:factory`, `celery -A M`."""
    pairs = pairwise(command)
    named = [after for before, after in pairs if before in ("-m", "-A")]
    return named + [word.split(":")[0] for word in command if re.fullmatch(r"[a-z_.]+:[a-z_]+", word)]


def test_commands_name_modules_that_exist_in_their_image() -> None:
    commands = {image: [_command(image)] for image in _IMAGES}
    for service in _compose()["services"].values():
        if isinstance(service.get("build"), dict) and "command" in service:
            commands[service["build"]["target"]].append(service["command"])
    for image, each in ((image, command) for image, all_ in commands.items() for command in all_):
        modules = _modules_of(each)
        assert modules, each
        for module in modules:
            assert importlib.util.find_spec(module) is not None, module
            assert module.split(".")[0] in _rooms(image), module


def _command(image: str) -> list[str]:
    """The CMD of an image, in its JSON form."""
    text = re.split(r"^CMD ", _stage(image).replace("\\\n", ""), flags=re.MULTILINE)[-1]
    command: list[str] = json.loads(text)
    return command


def test_the_final_images_run_without_rights_and_say_how_they_are() -> None:
    assert re.search(r"^USER \d+", _stage("run"), flags=re.MULTILINE)
    for image in _IMAGES:
        assert " AS " + image in _DOCKERFILE
        assert "HEALTHCHECK" in _stage(image)


def test_no_secret_stands_in_the_compose_file() -> None:
    text = (_ROOT / "docker-compose.yml").read_text()
    for name in ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "REDIS_PASSWORD"):
        assert f"${{{name}:?" in text
        assert not re.search(rf"{name}: (?!\$\{{)", text)


def test_no_secret_stands_in_an_argument() -> None:
    """Every user of the host reads the arguments of its processes, those of health checks too."""
    arguments = [
        words for name in _IMAGES for words in re.findall(r"(?:CMD|RUN) (.*)", _stage(name).replace("\\\n", ""))
    ]
    for service in _compose()["services"].values():
        arguments += [str(service.get("command")), str(service.get("healthcheck"))]
    for each in arguments:
        assert "PASSWORD" not in each
        assert not re.search(r"(?<!CELERY_BROKER_URL=\\\")\$\{?[A-Z]*_URL", each), each


def test_every_service_has_a_bound_on_its_memory() -> None:
    assert [name for name, service in _compose()["services"].items() if "mem_limit" not in service] == []


@pytest.fixture
def roles(postgres_url: str) -> Iterator[Callable[[str], str]]:
    """The roles of the compose file, in a database of a real PostgreSQL; the URL of one of them."""
    script = _compose()["configs"]["roles"]["content"]
    script = re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", script)  # each password is the name of its variable
    before, _, after = script.partition("\\connect ecif\n")
    *grants, last = after.splitlines()
    assert last == "ALTER ROLE postgres PASSWORD NULL;"  # the superuser here is another
    admin = make_url(postgres_url).set(drivername="postgresql")
    shown = admin.render_as_string(hide_password=False)
    with psycopg.connect(shown, autocommit=True) as connection:
        for statement in before.splitlines():
            connection.execute(statement.encode())
    with psycopg.connect(admin.set(database="ecif").render_as_string(hide_password=False)) as connection:
        for statement in grants:
            connection.execute(statement.encode())

    def url(service: str) -> str:
        written = make_url(
            re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", _compose()["services"][service]["environment"]["DATABASE_URL"])
        )
        return written.set(host=admin.host, port=admin.port).render_as_string(hide_password=False)

    yield url
    with psycopg.connect(shown, autocommit=True) as connection:
        connection.execute("DROP DATABASE ecif WITH (FORCE)")
        connection.execute("DROP ROLE ecif_service")
        connection.execute("DROP ROLE ecif_owner")


def test_the_service_works_as_a_role_that_only_reads_and_writes_rows(
    roles: Callable[[str], str], tmp_path: Path, image_zip: ImageZip
) -> None:
    upgrade(roles("migrate"))
    # Few results are many enough for a partition of their own: making and dropping it takes more rights than rows do.
    settings = Settings(
        ecif_home=tmp_path, database_url=roles("api"), redis_url="redis://127.0.0.1:1/0", ecif_results_apart=4
    )
    database = Database.from_settings(settings)
    place = Workplace(settings, database, Blobs.from_settings(settings))
    with TestClient(create_app(settings)) as client:
        dataset = client.post("/datasets", files={"file": ("a.zip", image_zip(8))}).json()["id"]
        job = {"task": "valuation", "dataset": dataset, "fit": None, "model": {"architecture": "tiny"}}
        posted = client.post("/jobs", json={**job, "validation": {"fraction": 0.5}})
        while work_once(place) is not None:
            pass
        found = client.get(posted.headers["location"]).json()
        assert found["status"] == "succeeded", found["error"]
        with database.transaction() as session:
            assert session.scalar(text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'results'::regclass")) == 2
        client.delete(posted.headers["location"])
        client.delete(f"/datasets/{dataset}")
    sweep(database, place.blobs, Bell(celery_application(settings)), settings)
    with database.transaction() as session:
        rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = CURRENT_USER"
        assert session.scalar(text(rights)) is False
    for forbidden in ("CREATE TABLE mine ()", "DROP TABLE jobs", "SELECT pg_read_file('/etc/passwd')"):
        with pytest.raises(ProgrammingError), database.transaction() as session:
            session.execute(text(forbidden))
    database.close()


def test_a_worker_gets_longer_to_end_than_a_shard_takes() -> None:
    services = _compose()["services"]
    assert services["worker"]["stop_grace_period"] == services["worker-cpu"]["stop_grace_period"] == "2m"


def test_every_service_waits_for_the_migration() -> None:
    services = _compose()["services"]
    for name in ("api", "worker", "worker-cpu", "sweeper"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
