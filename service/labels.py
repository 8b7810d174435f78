"""`name` and `metadata`: what users call their datasets and jobs, and how listings are filtered by it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, Field, RootModel

from service.json_body import parse
from store.errors import InvalidError
from store.nouns import Wanted
from store.specification import JobSettings, JobSpec, Task
from store.states import DatasetStatus, JobStatus

MAX_NAME = 200
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 500

Name = Annotated[str, Field(max_length=MAX_NAME)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=MAX_KEY)], Annotated[str, Field(max_length=MAX_VALUE)]],
    Field(max_length=MAX_METADATA, description="pairs of text of your own; listings are filtered by them"),
]


class Labels(BaseModel):
    """Of a dataset or a job; nothing is computed from them."""

    name: Name | None = None
    metadata: Metadata = {}


class JobSubmission(JobSpec, Labels):
    """A job as `POST /jobs` takes it in JSON: its specification, and what it is called."""


class FormSubmission(JobSettings, Labels):
    """The same beside uploads, which are its datasets."""


def spec_of(sent: JobSubmission) -> JobSpec:
    """The specification alone, which is what workers read."""
    return JobSpec.model_validate(sent.model_dump(exclude=set(Labels.model_fields), exclude_unset=True))


def form_metadata(field: str | None) -> dict[str, str]:
    """The metadata of a form, as JSON in a field of it."""
    return parse(field, RootModel[Metadata], ("body", "metadata")).root if field else {}


_METADATA = "metadata."
_NameQuery = Annotated[str | None, Query(max_length=MAX_NAME, description="only those of exactly this name")]


def _in_letters(text: Any) -> Any:
    try:
        float(text)
    except (TypeError, ValueError):
        return text
    raise ValueError("a time is written as 2026-11-24T12:00:00Z, and not as a number")


_Moment = Annotated[datetime, BeforeValidator(_in_letters)]
_After = Annotated[_Moment | None, Query(description="only those created later; without an offset it is UTC")]
_Before = Annotated[_Moment | None, Query(description="only those created earlier")]


def _wanted(
    request: Request, equal: Mapping[str, str | None], created_after: datetime | None, created_before: datetime | None
) -> Wanted:
    metadata: dict[str, str] = {}
    for parameter, value in request.query_params.multi_items():
        key = parameter.removeprefix(_METADATA)
        if key == parameter:
            continue
        if key in metadata:
            raise InvalidError(
                "two_values", f"{parameter} is given twice, and a dataset or job has one value", parameter
            )
        metadata[key] = value
    if len(metadata) > MAX_METADATA:
        raise InvalidError("too_many_filters", f"at most {MAX_METADATA} filters by metadata", "metadata")
    return Wanted(
        equal={column: value for column, value in equal.items() if value is not None},
        metadata=metadata,
        created_after=_with_offset(created_after),
        created_before=_with_offset(created_before),
    )


def _with_offset(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _of_jobs(
    request: Request,
    status: Annotated[JobStatus | None, Query(description="only those in this state")] = None,
    task: Annotated[Task | None, Query(description="only those of this task")] = None,
    dataset: Annotated[str | None, Query(max_length=200, description="only those on the dataset of this id")] = None,
    name: _NameQuery = None,
    created_after: _After = None,
    created_before: _Before = None,
) -> Wanted:
    equal = {"status": status, "task": task, "dataset_id": dataset, "name": name}
    return _wanted(request, equal, created_after, created_before)


def _of_datasets(
    request: Request,
    status: Annotated[DatasetStatus | None, Query(description="only those in this state")] = None,
    name: _NameQuery = None,
    created_after: _After = None,
    created_before: _Before = None,
) -> Wanted:
    return _wanted(request, {"status": status, "name": name}, created_after, created_before)


WantedJobs = Annotated[Wanted, Depends(_of_jobs)]
WantedDatasets = Annotated[Wanted, Depends(_of_datasets)]
