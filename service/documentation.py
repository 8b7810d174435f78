"""The OpenAPI document beyond what the framework finds: the bodies that endpoints read themselves, the types of what is
kept as JSON, and an example of every request and answer."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from service import errors, examples
from service.datasets.creation import DatasetReference
from service.labels import FormSubmission, JobSubmission
from service.models import ModelReference
from store.specification import JobSettings, JobSpec
from store.summaries import DatasetSummary, JobSummary

_BODIES: tuple[type[BaseModel], ...] = (
    JobSpec,
    JobSettings,
    JobSubmission,
    FormSubmission,
    DatasetReference,
    ModelReference,
)
_REF = "#/components/schemas/{model}"
_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


def document(app: FastAPI) -> None:
    """Let the document of this application tell all of it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = generate()
            schemas = whole["components"]["schemas"]
            schemas.update(_read_by_hand())
            schemas.update(_kept_as_json())
            _refer(schemas)
            _give_examples(whole)
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _read_by_hand() -> dict[str, Any]:
    _, extra = models_json_schema(
        [*((body, "validation") for body in _BODIES), (errors.Problem, "serialization")], ref_template=_REF
    )
    return dict(extra["$defs"])


def _kept_as_json() -> dict[str, Any]:
    """What is written by workers and shown as it is: nothing of it is read anew, so older rows are shown too."""
    kinds: list[tuple[str, Any, TypeAdapter[Any]]] = [
        ("JobSummary", "serialization", TypeAdapter(JobSummary)),
        ("DatasetSummary", "serialization", TypeAdapter(DatasetSummary)),
    ]
    _, extra = TypeAdapter.json_schemas(kinds, ref_template=_REF)
    return dict(extra["$defs"])


def _refer(schemas: dict[str, Any]) -> None:
    """Say of what type the fields are that hold such JSON."""
    spec = {
        "anyOf": [
            {"$ref": _REF.format(model="JobSpec")},
            {"type": "object", "description": "in listings: the same, long parts abridged"},
        ]
    }
    for owner, name, kind in (
        ("JobOut", "spec", spec),
        ("EstimateOut", "spec", spec),
        ("JobOut", "summary", _or_null("JobSummary")),
        ("DatasetOut", "summary", _or_null("DatasetSummary")),
    ):
        about = schemas[owner]["properties"][name]
        schemas[owner]["properties"][name] = {
            **kind,
            **{key: about[key] for key in ("title", "description") if key in about},
        }


def _or_null(model: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": _REF.format(model=model)}, {"type": "null"}]}


def _give_examples(whole: dict[str, Any]) -> None:
    for item in whole["paths"].values():
        for method, operation in item.items():
            if method not in _METHODS:
                continue
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["example"] = examples.PATHS[parameter["name"]]
            contents = [operation.get("requestBody", {}).get("content", {})]
            contents += [answer.get("content", {}) for answer in operation["responses"].values()]
            for content in contents:
                for media in content.values():
                    kind = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
                    if kind in examples.OF:
                        media["example"] = examples.OF[kind]
