"""The OpenAPI document and the service say the same, whatever is sent: schemathesis, over every operation."""

from collections import Counter
from collections.abc import Iterator

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.schemas import BaseSchema
from starlette.types import Receive, Scope, Send

from store import api_keys

CONFIG = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": 30, "no-shrink": True},
    "phases": {"stateful": {"generation": {"max-examples": 20}}},
    "checks": {
        # What a schema cannot say (this dataset does not exist, that is no archive) is a 4xx too.
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "400", "404", "409", "412", "413", "415", "422", "460"]
        },
        # Whoever speaks another version of a protocol is told that first.
        "negative_data_rejection": {"expected-statuses": ["400", "401", "404", "409", "412", "413", "415", "422"]},
    },
    "operations": [
        # A header that is in no document is no error.
        {"include-name": "POST /uploads", "checks": {"negative_data_rejection": {"enabled": False}}},
        # A job is there, and has no checkpoint.
        {
            "include-name": "GET /jobs/{job_id}/checkpoint",
            "checks": {"ensure_resource_availability": {"enabled": False}},
        },
    ],
}
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


class Started:
    """An application whose lifespan somebody else takes care of."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await self.app(scope, receive, send)


def failed_checks(recorder: ScenarioRecorder) -> Iterator[str]:
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                case, answer = recorder.cases[case_id].value, recorder.interactions[case_id].response
                sent = f"{case.method} {case.formatted_path} {case.query} {case.headers} {str(case.body)[:300]}"
                got = f"{answer.status_code} {answer.content[:300]!r}" if answer else "nothing"
                yield f"{check.name}: {check.failure_info.failure}\n  sent {sent}\n  got {got}"


def disagreements(schema: BaseSchema) -> tuple[Counter[str], list[str]]:
    """How many cases were sent to each operation, and what was wrong with the answers."""
    cases: Counter[str] = Counter()
    failures: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            cases[event.recorder.label] += len(event.recorder.cases)
            failures += failed_checks(event.recorder)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            failures.append(repr(event))
    print(f"{sum(cases.values())} cases: {dict(cases)}")  # shown by pytest -s
    return cases, failures


@pytest.fixture
def load(client, database):
    """The document, as schemathesis reads it; its requests show a key."""

    def make(**config):
        with database.transaction() as session:
            secret = api_keys.create(session, "default", None)[1]
        told = SchemathesisConfig.from_dict({**CONFIG, **config, "headers": {"Authorization": f"Bearer {secret}"}})
        return schemathesis.openapi.from_asgi("/openapi.json", Started(client.app), config=told)

    return make


def test_the_document_and_the_service_agree_whatever_is_sent(load, upload, image_zip, work):
    upload(image_zip(3))
    work()
    schema = load()
    cases, failures = disagreements(schema)
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:40])
    operations = {f"{method.upper()} {path}" for path, item in schema.raw_schema["paths"].items() for method in item}
    assert operations <= set(cases)
    assert sum(cases.values()) > 20 * len(operations)


@pytest.mark.parametrize("holds", ["images", "embeddings"])
def test_the_document_and_the_service_agree_on_what_is_there(
    load, client, upload, image_zip, embedding_zip, work, holds
):
    """A guess at an id finds nothing; here every id is one of a finished job and its dataset."""
    dataset = upload(image_zip(8, broken=(1,)) if holds == "images" else embedding_zip(8))["id"]
    tiny = {"architecture": "tiny"} if holds == "images" else None
    spec = {"task": "misalignment", "dataset": dataset, "fit": None, "model": tiny, "objective": {"batch_size": 4}}
    job = client.post("/jobs", json=spec).json()["id"]
    work()
    assert client.get(f"/jobs/{job}").json()["status"] == "succeeded"
    schema = load(
        parameters={"path.dataset_id": dataset, "path.job_id": job, "path.key": "images/0.png"},
        phases={"stateful": {"enabled": False}},
        generation={**CONFIG["generation"], "max-examples": 5},
    )
    _, failures = disagreements(schema.include(method="GET", path_regex="{"))
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:40])
