"""The OpenAPI document says of what type everything is, with examples, and what is really written is of that type."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from service.app import create_app
from store.settings import Settings
from store.summaries import DatasetSummary, JobSummary, TallyCounts
from tests.service.exporting import World
from worker.ingest.tally import Tally


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app: FastAPI = create_app(Settings(database_url="postgresql+psycopg://nobody/nothing"))
    return app.openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def contents(operation: dict[str, Any]) -> list[dict[str, Any]]:
    both = [operation.get("requestBody", {}), *operation["responses"].values()]
    return [media for one in both for media in one.get("content", {}).values()]


def test_every_operation_has_examples_that_are_of_its_types(document: dict[str, Any]) -> None:
    seen = 0
    for name, operation in operations(document):
        for media in contents(operation):
            if "$ref" in media.get("schema", {}) and "/HTTPValidationError" not in media["schema"]["$ref"]:
                assert "example" in media, f"{name}: {media['schema']}"
                whole = {**media["schema"], "components": document["components"]}
                jsonschema.validate(media["example"], whole, jsonschema.Draft202012Validator)
                seen += 1
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or parameter["example"], name
    assert seen > 100


def test_an_example_of_a_request_is_one_that_is_understood(document: dict[str, Any]) -> None:
    content = document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"]["model"] == "ViT-B-32"
    assert document["paths"]["/datasets"]["post"]["requestBody"]["content"]["application/json"]["example"]["uri"]


def test_specification_and_summary_have_types(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for owner, name, kind in (
        ("JobOut", "spec", "JobSpec"),
        ("EstimateOut", "spec", "JobSpec"),
        ("JobOut", "summary", "JobSummary"),
        ("DatasetOut", "summary", "DatasetSummary"),
    ):
        assert {"$ref": f"#/components/schemas/{kind}"} in schemas[owner]["properties"][name]["anyOf"]
        assert schemas[owner]["properties"][name]["description"]
    assert schemas["JobSummary"]["properties"]["counts"] == {"$ref": "#/components/schemas/Counts"}
    assert "scores" not in schemas["JobSummary"]["required"]  # listings leave it out


def is_whole(kind: Any, content: dict[str, Any]) -> None:
    """It is of the type, and nothing of it is unknown to the type."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    read = adapter.validate_python(content, strict=True)
    assert adapter.dump_python(read, exclude_unset=True) == content


@pytest.mark.parametrize("which", ["job", "embeddings", "traceback", "valuation", "explained"])
def test_the_summary_of_each_task_is_of_its_type(
    world: World, request: pytest.FixtureRequest, document: dict[str, Any], which: str
) -> None:
    job = world.client.get(f"/jobs/{request.getfixturevalue(which)}").json()
    is_whole(JobSummary, job["summary"])
    dataset = world.client.get(f"/datasets/{job['spec']['dataset']}").json()
    is_whole(DatasetSummary, dataset["summary"])
    for kind, content in (("JobOut", job), ("DatasetOut", dataset)):
        schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
        jsonschema.validate(content, schema, jsonschema.Draft202012Validator)


def test_the_summary_of_a_removal_is_of_its_type(world: World, embeddings: str) -> None:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    job = world.job(
        task="removal",
        dataset=dataset,
        validation={"fraction": 0.2},
        remove={"keys": ["1", "2"]},
        verify=True,
    )
    summary = world.client.get(f"/jobs/{job}").json()["summary"]
    assert summary["removal"]["verified"]["stationary"] in (True, False)
    is_whole(JobSummary, summary)


def test_what_a_shard_of_an_ingest_counts_is_of_its_type() -> None:
    tally = Tally()
    tally.accept("a dog", {"label": "dog"})
    is_whole(TallyCounts, dict(tally.as_json()))
    assert Tally.from_json(tally.as_json()) == tally
