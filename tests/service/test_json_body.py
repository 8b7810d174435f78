"""JSON bodies that are built to take long: every one is refused in time that grows with its length, beside the loop."""

import asyncio
import time
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from service.errors import MalformedError
from service.json_body import parse
from store.specification import JobSettings, JobSpec
from tests.service_fixtures import ProblemOf

MEBIBYTE = 1 << 20


def filled(item: str) -> str:
    return ",".join([item] * (MEBIBYTE // (len(item) + 1) - 100))


def test_a_name_that_is_given_twice_is_found_in_linear_time() -> None:
    """Quadratic, this takes minutes."""
    body = "{" + ",".join(f'"{n}":0' for n in range(80_000)) + ',"79999":0}'
    began = time.perf_counter()
    with pytest.raises(MalformedError, match="80,001 members"):
        parse(body, JobSpec, ("body",))
    assert time.perf_counter() - began < 5
    with pytest.raises(MalformedError, match="'task' is given twice"):
        parse('{"task": "valuation", "dataset": "ds", "task": "removal"}', JobSpec, ("body",))


def test_a_message_does_not_repeat_a_mebibyte() -> None:
    name = "n" * MEBIBYTE
    with pytest.raises(MalformedError) as refused:
        parse(f'{{"{name}": 1, "{name}": 2}}', JobSpec, ("body",))
    assert len(refused.value.message) < 500
    with pytest.raises(MalformedError) as refused:
        parse("9" * MEBIBYTE + ".5", JobSpec, ("body",))
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    "fields",
    [
        '"task":"misalignment","methods":[{}]',
        '"task":"removal","remove":{{"keys":[{}]}}',
        '"task":"traceback","queries":{{"dataset":"ds","candidates":[{}]}}',
    ],
)
def test_half_a_million_wrong_items_are_one_error(fields: str) -> None:
    with pytest.raises(RequestValidationError) as refused:
        parse("{" + fields.format(filled("0")) + "}", JobSettings, ("body",))
    assert len(refused.value.errors()) <= 3


@pytest.mark.parametrize(("path", "module"), [("/jobs", "jobs.endpoints"), ("/datasets", "datasets.creation"),
                                              ("/models", "models")])  # fmt: skip
def test_no_body_is_parsed_on_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, module: str
) -> None:
    on_the_loop = []

    def watched(*args: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            on_the_loop.append(False)
        else:
            on_the_loop.append(True)
        return parse(*args)

    monkeypatch.setattr(f"service.{module}.parse", watched)
    assert client.post(path, json={}).status_code == 422
    assert on_the_loop == [False]


def test_the_name_of_an_architecture_is_short_in_a_form_too(client: TestClient, problem_of: ProblemOf) -> None:
    form: dict[str, Any] = {"files": {"file": ("m.safetensors", b"x")}, "data": {"architecture": "a" * 100_000}}
    problem = problem_of(client.post("/models", **form))
    assert (problem["status"], problem["code"]) == (422, "name_too_long")
    assert len(problem["detail"]) < 500


@pytest.mark.parametrize(
    ("body", "place", "says"),
    [
        ({"methds": ["ecif"]}, ["methds"], "there is no such field (did you mean 'methods'?)"),
        ({"objective": {"batchsize": 4}}, ["objective", "batchsize"], "(did you mean 'batch_size'?)"),
        ({"validation": {"datset": "ds_1"}}, ["validation", "datset"], "(did you mean 'dataset'?)"),
        ({"model": {"architecure": "tiny"}}, ["model", "architecure"], "(did you mean 'architecture'?)"),
        ({"fit": {"zzz": 1}}, ["fit", "zzz"], "there is no such field"),
    ],
)
def test_a_misspelt_field_names_the_nearest(
    client: TestClient, problem_of: ProblemOf, body: dict[str, Any], place: list[str], says: str
) -> None:
    answer = problem_of(client.post("/jobs", json={"task": "misalignment", "dataset": "ds_1", **body}))
    messages = {tuple(error["loc"]): error["msg"] for error in answer["errors"]}
    assert says in messages[("body", *place)]


def test_a_misspelt_field_of_a_form_names_the_nearest(client: TestClient, problem_of: ProblemOf) -> None:
    answer = problem_of(client.post("/datasets", files={"fil": b"x"}))
    assert "(did you mean 'file'?)" in answer["detail"]


def test_a_thousand_misspelt_fields_are_told_in_no_time() -> None:
    body = '{"task":"removal","dataset":"ds",' + ",".join(f'"methods{n:090}":0' for n in range(990)) + "}"
    began = time.process_time()
    with pytest.raises(RequestValidationError) as refused:
        parse(body, JobSpec, ("body",))
    assert time.process_time() - began < 1
    assert len(refused.value.errors()) == 990


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("ViT-B-32", {"architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}),
        ("ViT-B-32:openai", {"architecture": "ViT-B-32", "pretrained": "openai"}),
        ("tiny", {"architecture": "tiny", "pretrained": None}),
        ("model_1", {"id": "model_1"}),
        ("hf-hub:timm/x", {"architecture": "hf-hub:timm/x", "pretrained": None}),
    ],
)
def test_a_model_may_be_named_by_text_alone(text: str, model: dict[str, Any]) -> None:
    spec = parse(f'{{"task": "misalignment", "dataset": "ds_1", "model": "{text}"}}', JobSpec, ("body",))
    assert spec.model_dump()["model"] == model


def test_random_weights_are_not_taken_for_pretrained_ones(client: TestClient, problem_of: ProblemOf) -> None:
    answer = problem_of(client.post("/jobs", json={"task": "misalignment", "dataset": "ds_1", "model": "RN50"}))
    assert answer["detail"].startswith("model: which weights of RN50 is not said: write RN50:openai, ")
