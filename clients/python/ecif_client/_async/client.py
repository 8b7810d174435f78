"""The HTTP contract as methods."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import httpx

from ecif_client._async.connection import AsyncConnection
from ecif_client._async.downloads import download
from ecif_client._async.events import follow
from ecif_client._async.pages import AsyncPages
from ecif_client._async.uploads import AsyncSending
from ecif_client.address import DEFAULT_URL, checked_id, path_of
from ecif_client.answers import (
    Dataset,
    Delivery,
    Estimate,
    Event,
    Job,
    Model,
    Pair,
    Result,
    Spec,
    WebhookSecret,
)
from ecif_client.errors import ApiError, JobFailedError, UnreachableError, UsageError, WaitedTooLongError, object_of
from ecif_client.idempotency import headers_of, is_replay, part_key, upload_key
from ecif_client.labels import field_of, filters_of
from ecif_client.retrying import TRIES, OnRetry
from ecif_client.sources import Seen, Source
from ecif_client.waiting import blocking_async, pause_async

PathLike = str | Path

_PATIENCE = httpx.Timeout(60.0, read=600.0)  # a report is made before its first byte


def _nothing(*_seen: Any) -> None:
    """For who does not want to see how far it is."""


class AsyncClient:
    """A connection to one service.

    Args:
        url: where it listens.
        key: an API key, if it wants one.
        timeout: seconds for each answer to begin.
        tries: how often a request is sent that nobody answers, or that a busy service turns away.
        on_retry: is called before each pause, with the error and the seconds to wait.

    Every method raises ApiError when the service refuses and UnreachableError when nobody answers, after trying again.
    What makes something takes an `idempotency_key`: sent again under the same key, by this process or by another within
    a day, it is done once. `seen` is called with the bytes that are done, and those of the whole (0: not known).
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        timeout: float = 60.0,
        *,
        tries: int = TRIES,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._connection = AsyncConnection(url, key, timeout, tries, on_retry)
        self.url = self._connection.url

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    # Datasets

    async def upload(
        self,
        path: PathLike,
        *,
        name: str | None = None,
        format: str | None = None,  # noqa: A002
        caption_template: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        seen: Seen = _nothing,
    ) -> Dataset:
        """Make a dataset of a file, or of a folder (as a tar).

        It goes in pieces, and goes on where it stopped. Without a key of the caller's, the key follows from the
        content: the same file under the same name is the same dataset for a day, unless that failed or was deleted.
        """
        source = await blocking_async(Source.of, Path(path))
        fields = {"name": name, "format": format, "caption_template": caption_template}
        return await self._upload(source, fields | field_of(metadata), idempotency_key, seen)

    async def upload_files(
        self,
        files: Mapping[str, PathLike],
        *,
        name: str,
        format: str | None = None,  # noqa: A002
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        seen: Seen = _nothing,
    ) -> Dataset:
        """Make a dataset of several files under the names given here, such as `{"image.npy": …, "text.npy": …}`."""
        named = {member: Path(path) for member, path in files.items()}
        source = await blocking_async(Source.of_files, f"{name}.tar", named)
        fields = {"name": name, "format": format}
        return await self._upload(source, fields | field_of(metadata), idempotency_key, seen)

    async def _upload(self, source: Source, fields: Mapping[str, Any], key: str | None, seen: Seen) -> Dataset:
        digest = await blocking_async(source.digest)
        content = {**fields, "filename": source.name, "digest": digest}
        given = {field: value for field, value in fields.items() if value is not None}
        for turn in count():
            its_key = upload_key(key, content, turn)
            sending = await AsyncSending.begin(self._connection, source, digest, its_key, seen)
            try:
                await sending.finish()
            except ApiError as error:
                if error.code != "upload_not_found":
                    raise
            # It may have become a dataset before it expired: the next answer says so.
            body = {"upload": sending.id, **given}
            headers = headers_of(part_key(its_key, sending.id))
            try:
                answer = await self._connection.ask("POST", "/datasets", json=body, headers=headers)
            except ApiError as error:
                if error.code in ("unknown_upload", "upload_used"):  # a day has passed, and its key leads to nothing
                    continue
                raise
            dataset: Dataset = object_of(answer, self.url, "id", "digest")
            if dataset["digest"] != digest:
                raise UnreachableError(f"{source.name} arrived changed: send it again")
            if not is_replay(answer) or key is not None or await self._is_usable(dataset):
                return dataset
        raise AssertionError("unreachable")

    async def _is_usable(self, dataset: Dataset) -> bool:
        try:
            return (await self.dataset(dataset["id"]))["status"] != "failed"
        except ApiError as error:
            if error.status == 404:
                return False
            raise

    async def refer(
        self,
        uri: str,
        *,
        name: str | None = None,
        format: str | None = None,  # noqa: A002
        caption_template: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Have a dataset fetched from https, s3 or gs."""
        body = {"uri": uri, "name": name, "format": format, "caption_template": caption_template}
        return cast("Dataset", await self._make("/datasets", body | field_of(metadata), idempotency_key))

    def datasets(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        limit: int | None = None,
    ) -> AsyncPages[Dataset]:
        """Datasets, newest first: all, or those of this state, name and metadata, created in between (ISO 8601).
        `limit`, here and in other listings, is how many come in one answer."""
        question = {"status": status, "name": name, "created_after": created_after, "created_before": created_before}
        return AsyncPages(self._connection, "/datasets", question | filters_of(metadata) | {"limit": limit})

    async def dataset(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return cast("Dataset", await self._connection.object("GET", path_of("datasets", dataset_id), "id", "status"))

    def pairs(self, dataset_id: str, *, rejected: bool | None = None, duplicate: str | None = None) -> AsyncPages[Pair]:
        """Pairs of a dataset; `duplicate` (image, pixels, caption, near_image or near_caption) lists equal ones."""
        question = {"rejected": rejected, "duplicate": duplicate}
        return AsyncPages(self._connection, path_of("datasets", dataset_id, "pairs"), question)

    async def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset, its images at once."""
        await self._connection.ask("DELETE", path_of("datasets", dataset_id))

    # Jobs

    async def submit(
        self,
        spec: Spec,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Promise a job on datasets that are named by id. Without a key of the caller's, each call makes a job."""
        labels = ({} if name is None else {"name": name}) | field_of(metadata)
        return cast("Job", await self._make("/jobs", {**spec, **labels}, idempotency_key))

    async def estimate(self, spec: Spec) -> Estimate:
        """What `submit` would take, by jobs that were; nothing is made."""
        ask = {"dry_run": "true"}
        return cast("Estimate", await self._connection.object("POST", "/jobs", "phases", json=spec, params=ask))

    def jobs(
        self,
        *,
        status: str | None = None,
        task: str | None = None,
        dataset: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        limit: int | None = None,
    ) -> AsyncPages[Job]:
        """Jobs, newest first, without their long parts: all, or those of this state, task, dataset, name and metadata,
        created in between (ISO 8601)."""
        question = {"status": status, "task": task, "dataset": dataset, "name": name}
        question |= {"created_after": created_after, "created_before": created_before}
        return AsyncPages(self._connection, "/jobs", question | filters_of(metadata) | {"limit": limit})

    async def job(self, job_id: str) -> Job:
        """One job."""
        return cast("Job", await self._connection.object("GET", path_of("jobs", job_id), "id", "status"))

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to end. Asking again changes nothing."""
        return cast("Job", await self._connection.object("POST", path_of("jobs", job_id, "cancel"), "id", "status"))

    async def delete_job(self, job_id: str) -> None:
        """Delete a job and its results; one that runs is cancelled first."""
        await self._connection.ask("DELETE", path_of("jobs", job_id))

    async def wait(self, job_id: str, *, seconds: float | None = None, seen: Callable[[Job], object] = _nothing) -> Job:
        """Poll as often as the service asks for, until a job has succeeded; `seen` is called with every state.

        Raises:
            JobFailedError: it failed or was cancelled.
            WaitedTooLongError: `seconds` have passed.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            answer = await self._connection.ask("GET", path_of("jobs", job_id))
            job: Job = object_of(answer, self.url, "id", "status")
            seen(job)
            if job["status"] == "succeeded":
                return job
            if job["status"] in ("failed", "cancelled"):
                why = job["error"]["message"] if job["error"] else "on request"
                raise JobFailedError(f"job {job_id} {job['status']}: {why}")
            retry_after = answer.headers.get("Retry-After", "")
            rest = float(retry_after) if retry_after.isdecimal() else 1.0
            if until is not None and time.monotonic() + rest > until:
                raise WaitedTooLongError(f"job {job_id} is still {job['status']} after {seconds:g} seconds")
            await pause_async(rest)

    def events(self, job_id: str) -> AsyncIterator[Event]:
        """Where a job stands now, and then whenever that changes, until it has ended."""
        return follow(self._connection, path_of("jobs", job_id, "events"))

    def results(
        self,
        job_id: str,
        *,
        sort: str | None = None,
        order: str | None = None,
        flagged: bool | None = None,
        key: str | None = None,
        query: str | None = None,
        rate: float | None = None,
        caption: str | None = None,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        **bounds: float | None,
    ) -> AsyncPages[Result]:
        """Every row of a job in its order, of `columns` only if they are named; `limit` is how many come in one answer,
        not how many there are. `bounds` are `min_` and `max_` of any score, such as `max_clip_score=0.2`."""
        bounds |= {"rate": rate}
        question = {"sort": sort, "order": order, "flagged": flagged, "key": key, "query": query, **bounds}
        question |= {"caption": caption, "columns": None if columns is None else ",".join(columns)}
        return AsyncPages(self._connection, path_of("jobs", job_id, "results"), question | {"limit": limit})

    async def export(
        self,
        job_id: str,
        into: PathLike,
        *,
        format: str = "csv",  # noqa: A002
        keep: str = "all",
        seen: Seen = _nothing,
    ) -> int:
        """Write a job's export to a file, whole or not at all; return its size in bytes. What came before an
        interruption stays beside the file (`.part`), and the next call goes on after it."""
        params = {"format": format, "keep": keep}
        return await download(self._connection, path_of("jobs", job_id, "export"), params, Path(into), seen)

    async def checkpoint(self, job_id: str, into: PathLike, *, seen: Seen = _nothing) -> int:
        """Write the model that a removal has edited to a file (safetensors); return its size in bytes."""
        return await download(self._connection, path_of("jobs", job_id, "checkpoint"), {}, Path(into), seen)

    async def report(self, job_id: str) -> str:
        """The outcome of a job as a page of HTML that needs nothing else."""
        return (await self._connection.ask("GET", path_of("jobs", job_id, "report"), timeout=_PATIENCE)).text

    # Models

    async def bring_model(
        self,
        path: PathLike,
        *,
        architecture: str | Mapping[str, Any] | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Model:
        """Upload weights (safetensors). `architecture` is needed unless the file's metadata say it."""
        file = Path(path)
        if not file.is_file():
            raise UsageError(f"{path}: no such file")
        described = architecture if architecture is None or isinstance(architecture, str) else json.dumps(architecture)
        fields = {"architecture": described, "name": name}
        given = {field: value for field, value in fields.items() if value is not None}
        headers = headers_of(idempotency_key)

        async def send() -> Any:
            with file.open("rb") as content:
                files = {"file": (file.name, content)}
                return await self._connection.once("POST", "/models", data=given, files=files, headers=headers)

        return cast("Model", object_of(await self._connection.again(send), self.url, "id", "status"))

    async def refer_model(
        self,
        *,
        uri: str | None = None,
        job: str | None = None,
        architecture: str | Mapping[str, Any] | None = None,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Model:
        """Have weights copied from `uri` (https, s3 or gs), or from `job`, a removal that succeeded."""
        body = {"uri": uri, "job": job, "architecture": architecture, "name": name}
        return cast("Model", await self._make("/models", body, idempotency_key))

    def models(self, *, limit: int | None = None) -> AsyncPages[Model]:
        """Models that were brought, newest first."""
        return AsyncPages(self._connection, "/models", {"limit": limit})

    async def model(self, model_id: str) -> Model:
        """One model."""
        return cast("Model", await self._connection.object("GET", path_of("models", model_id), "id", "status"))

    async def delete_model(self, model_id: str) -> None:
        """Delete a model that no unfinished job uses."""
        await self._connection.ask("DELETE", path_of("models", model_id))

    # Notices of ended jobs

    def deliveries(self, job_id: str) -> AsyncPages[Delivery]:
        """The notice of a job's end, and every attempt to deliver it."""
        return AsyncPages(self._connection, path_of("jobs", job_id, "deliveries"), {})

    async def replay_delivery(self, job_id: str, delivery_id: str) -> Delivery:
        """Send a notice again."""
        path = path_of("jobs", job_id, "deliveries", checked_id("deliveries", delivery_id), "replay")
        return cast("Delivery", await self._connection.object("POST", path, "id", "status"))

    async def webhook_secret(self) -> WebhookSecret:
        """What notices are signed with."""
        return cast("WebhookSecret", await self._connection.object("GET", "/webhook-secret", "secret"))

    async def rotate_webhook_secret(
        self, *, keep_seconds: int | None = None, idempotency_key: str | None = None
    ) -> WebhookSecret:
        """Make a new secret; the present one stays good beside it for `keep_seconds` (a day)."""
        params = {} if keep_seconds is None else {"keep_seconds": keep_seconds}
        headers, path = headers_of(idempotency_key), "/webhook-secret/rotate"
        made = await self._connection.object("POST", path, "secret", params=params, headers=headers)
        return cast("WebhookSecret", made)

    async def _make(self, path: str, body: Mapping[str, Any], key: str | None) -> Any:
        """POST what is to be made, with the fields that are given."""
        given = body if path == "/jobs" else {name: value for name, value in body.items() if value is not None}
        return await self._connection.object("POST", path, "id", "status", json=given, headers=headers_of(key))
