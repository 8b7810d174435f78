"""A user of the service: everything over HTTP, nothing through the back door."""

import time
from collections.abc import Iterator
from typing import Any

import httpx

Json = dict[str, Any]

_PAGE = 1000
_SECONDS = 60
_ENDS = ("succeeded", "failed", "cancelled")


class RefusedError(Exception):
    """The service answered with a problem, or a job ended without success."""


class Visitor:
    """Speaks to one service. Proxies of the environment are not for loopback."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(base_url=url, timeout=_SECONDS, trust_env=False, transport=transport)

    def close(self) -> None:
        self._http.close()

    def upload(self, name: str, content: bytes) -> str:
        """Send a zip; the id of the data set."""
        files = {"file": (f"{name}.zip", content, "application/zip")}
        return str(_json(self._http.post("/datasets", files=files, data={"name": name}))["id"])

    def submit(self, specification: Json) -> str:
        """Ask for a job; its id."""
        return str(_json(self._http.post("/jobs", json=specification))["id"])

    def follow(self, job: str, patience_seconds: float) -> Iterator[Json]:
        """The job as it is now, again and again until it has ended, as often as `Retry-After` says.

        Raises:
            RefusedError: it did not succeed, or took longer than anybody would wait.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            answer = self._http.get(f"/jobs/{job}")
            seen = _json(answer)
            yield seen
            if seen["status"] in _ENDS:
                break
            if time.monotonic() > deadline:
                raise RefusedError(f"the job is still {seen['status']} after {patience_seconds:.0f} s")
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        if seen["status"] != "succeeded":
            error = seen["error"] or {}
            raise RefusedError(f"the job {seen['status']}: {error.get('message', 'no reason was given')}")

    def results(self, job: str) -> Iterator[Json]:
        """Every scored pair, in rank order, page by page."""
        cursor = None
        while True:
            parameters = {"limit": str(_PAGE)} | ({"cursor": cursor} if cursor else {})
            page = _json(self._http.get(f"/jobs/{job}/results", params=parameters))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def report(self, job: str) -> bytes:
        """The outcome of the job, as a page."""
        answer = self._http.get(f"/jobs/{job}/report")
        _refuse(answer)
        return answer.content


def _json(answer: httpx.Response) -> Json:
    _refuse(answer)
    content: Json = answer.json()
    return content


def _refuse(answer: httpx.Response) -> None:
    if answer.is_error:
        request = f"{answer.request.method} {answer.request.url.path}"
        raise RefusedError(f"{request} was answered with {answer.status_code}: {answer.text}")
