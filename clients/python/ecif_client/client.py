"""The HTTP contract as methods. Everything that is asked for twice is done once: POSTs carry an Idempotency-Key."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from ecif_client.errors import ApiError, JobFailedError, UnreachableError, WaitedTooLongError

Json = dict[str, Any]
DEFAULT_URL = "http://127.0.0.1:8000"
ENDED = ("succeeded", "failed", "cancelled")
_TRIES = 5
_LONGEST_PAUSE = 10.0
_AGAIN = (429, 502, 503, 504)


class Client:
    """A connection to one service.

    Args:
        url: where it listens.
        key: an API key, if it wants one.
        timeout: seconds for each answer to begin.

    Every method raises ApiError when the service refuses and UnreachableError when nobody answers, after trying again.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.url = url

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, path: Path, *, name: str | None = None, format: str | None = None) -> Json:  # noqa: A002
        """POST a file as a dataset."""
        fields = {key: value for key, value in (("name", name), ("format", format)) if value}

        def send(headers: dict[str, str]) -> httpx.Response:
            with path.open("rb") as file:
                return self._http.post("/datasets", files={"file": (path.name, file)}, data=fields, headers=headers)

        return self._once(send)

    def refer(self, uri: str, *, name: str | None = None, format: str | None = None) -> Json:  # noqa: A002
        """Have a dataset fetched from https, s3 or gs."""
        body = {key: value for key, value in (("uri", uri), ("name", name), ("format", format)) if value}
        return self._once(lambda headers: self._http.post("/datasets", json=body, headers=headers))

    def submit(self, spec: Json) -> Json:
        """POST a job on datasets that are named by id."""
        return self._once(lambda headers: self._http.post("/jobs", json=spec, headers=headers))

    def estimate(self, spec: Json) -> Json:
        """What `submit` would take, by jobs that were; nothing is made."""
        ask = {"dry_run": "true"}
        return self._answered(lambda: self._http.post("/jobs", json=spec, params=ask)).json()  # type: ignore[no-any-return]

    def dataset(self, dataset_id: str) -> Json:
        return self._get(f"/datasets/{dataset_id}").json()  # type: ignore[no-any-return]

    def job(self, job_id: str) -> Json:
        return self._get(f"/jobs/{job_id}").json()  # type: ignore[no-any-return]

    def cancel(self, job_id: str) -> Json:
        return self._answered(lambda: self._http.post(f"/jobs/{job_id}/cancel")).json()  # type: ignore[no-any-return]

    def results(self, job_id: str, **question: Any) -> Iterator[Json]:
        """Every row of a job in its order, page by page; `question` is sort, order, flagged, rate, key, query."""
        cursor = None
        while True:
            params = {**question, "limit": 1000, **({"cursor": cursor} if cursor else {})}
            page = self._get(f"/jobs/{job_id}/results", params=params).json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def export(self, job_id: str, into: Path, *, format: str = "csv", keep: str = "all") -> int:  # noqa: A002
        """Write a job's export to a file, whole or not at all; return its size in bytes."""
        part = into.with_name(f"{into.name}.part")
        params = {"format": format, "keep": keep}
        with ExitStack() as stack:
            try:
                answer = stack.enter_context(self._http.stream("GET", f"/jobs/{job_id}/export", params=params))
                if answer.is_error:
                    answer.read()
                _raise_for(answer)
                with part.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
            except httpx.TransportError as error:
                part.unlink(missing_ok=True)
                raise UnreachableError(f"{self.url}: {error}") from None
        part.replace(into)
        return into.stat().st_size

    def wait(self, job_id: str, *, seconds: float | None = None, seen: Callable[[Json], None] = lambda _: None) -> Json:
        """Poll as often as the service asks for, until a job ended; `seen` is told of every state.

        Raises:
            JobFailedError: it failed or was cancelled.
            WaitedTooLongError: `seconds` have passed.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            answer = self._get(f"/jobs/{job_id}")
            job: Json = answer.json()
            seen(job)
            if job["status"] == "succeeded":
                return job
            if job["status"] in ENDED:
                why = (job["error"] or {}).get("message", "on request")
                raise JobFailedError(f"job {job_id} {job['status']}: {why}")
            pause = float(answer.headers.get("Retry-After", "1"))
            if until is not None and time.monotonic() + pause > until:
                raise WaitedTooLongError(f"job {job_id} is still {job['status']} after {seconds:g} seconds")
            time.sleep(pause)

    def _get(self, path: str, params: Json | None = None) -> httpx.Response:
        return self._answered(lambda: self._http.get(path, params=params))

    def _once(self, send: Callable[[dict[str, str]], httpx.Response]) -> Json:
        key = {"Idempotency-Key": str(uuid.uuid4())}
        answer: Json = self._answered(lambda: send(key)).json()
        return answer

    def _answered(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(1, _TRIES + 1):
            try:
                answer = ask()
            except httpx.TransportError as error:
                if attempt == _TRIES:
                    raise UnreachableError(f"{self.url} does not answer: {error}") from None
                time.sleep(min(_LONGEST_PAUSE, 0.3 * 2**attempt))
                continue
            if answer.status_code in _AGAIN and attempt < _TRIES:
                pause = answer.headers.get("Retry-After", "")
                time.sleep(min(_LONGEST_PAUSE, float(pause) if pause.isdecimal() else 0.3 * 2**attempt))
                continue
            _raise_for(answer)
            return answer
        raise AssertionError("unreachable")


def _raise_for(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        problem = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        problem = {"title": f"{answer.status_code} {answer.reason_phrase}", "status": answer.status_code}
    if answer.status_code >= 500:
        raise UnreachableError(f"the service is not well: {problem.get('detail') or problem.get('title')}")
    if problem.get("code") == "dataset_failed":  # before the job was made, as it could have after
        raise JobFailedError(f"failed: {problem['detail']}")
    raise ApiError(problem)
