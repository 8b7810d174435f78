"""The jobs that are submitted, few and small, each many times, so that every result has one to be compared with; and
clients as the documentation wants them to be: who hears no answer sends the same POST again, under the same key.
"""

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import numpy as np

from benchmarks.chaos.records import UNENDED, Records

_PAIRS = 48
_WIDTH = 8
_WRONG = 8


@dataclass(frozen=True)
class Recipe:
    """One job, to be submitted under any number of keys."""

    name: str
    settings: dict[str, Any]
    upload: bytes

    @property
    def form(self) -> dict[str, Any]:
        """Its body when the data come with it."""
        spec = (None, json.dumps(self.settings), "application/json")
        return {"dataset": (f"{self.name}.zip", self.upload, "application/zip"), "spec": spec}

    def naming(self, dataset_id: str) -> dict[str, Any]:
        """Its body when the data are there already."""
        return {**self.settings, "dataset": dataset_id}


def recipes(number: int, receiver: str) -> list[Recipe]:
    """`number` different jobs over embeddings of their own; a few hundred milliseconds of work each. `receiver` gets
    the notice of the end of each."""
    notify = {"notify": {"url": receiver}}
    return [Recipe(f"recipe-{n}", _settings(n) | notify, _embeddings(n)) for n in range(number)]


def _settings(number: int) -> dict[str, Any]:
    if number % 2:
        return {"task": "valuation", "validation": {"fraction": 0.25}, "objective": {"batch_size": 16, "seed": number}}
    return {"task": "misalignment", "fit": {"epochs": 60}, "objective": {"batch_size": 16, "seed": number}}


def _embeddings(seed: int) -> bytes:
    """image.npy and text.npy (48, 8) float32, the first captions swapped."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(_PAIRS, _WIDTH)).astype(np.float32)
    text = image + 0.3 * generator.normal(size=(_PAIRS, _WIDTH)).astype(np.float32)
    text[:_WRONG] = text[:_WRONG][::-1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("image.npy", image), ("text.npy", text)):
            buffer = io.BytesIO()
            np.save(buffer, content)
            archive.writestr(name, buffer.getvalue())
    return out.getvalue()


_TIMEOUT_SECONDS = 10.0
_PAUSE_SECONDS = 0.3
_TO_BE_SENT_AGAIN = (httpx.codes.CONFLICT, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.INSUFFICIENT_STORAGE)
"""The first is still being worked on; the database is away; the disk is full. Anything else that is no success breaks a
promise."""


class UnexpectedAnswerError(Exception):
    """An answer that no fault of ours explains."""


@dataclass(frozen=True)
class Accepted:
    """A job that somebody was promised."""

    id: str
    recipe: Recipe
    dataset_id: str
    tries: int


class Client:
    """Speaks to the API, for as long as it takes. One for each thread."""

    def __init__(self, url: str, key: str, deadline: float) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._deadline = deadline
        self.tries = 0

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, after however many tries.

        Raises:
            UnexpectedAnswerError: it is an error.
            TimeoutError: there was none until the deadline.
        """
        self.tries = 0
        while True:
            self.tries += 1
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if answer.is_success:
                    return answer
                last = f"{answer.status_code} {answer.text}"
                if answer.status_code not in _TO_BE_SENT_AGAIN:
                    raise UnexpectedAnswerError(f"{method} {path}: {last}")
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"{method} {path}: no answer in time, at last {last}")
            time.sleep(_PAUSE_SECONDS)

    def upload(self, recipe: Recipe, key: str) -> str:
        """The id of a dataset that holds the recipe's data."""
        files = {"file": (f"{recipe.name}.zip", recipe.upload, "application/zip")}
        return str(self.ask("POST", "/datasets", files=files, headers={"Idempotency-Key": key}).json()["id"])

    def submit(self, recipe: Recipe, key: str, dataset_id: str | None) -> Accepted:
        """A job over a dataset that is there, or over data that come with it."""
        body: dict[str, Any] = {"json": recipe.naming(dataset_id)} if dataset_id else {"files": recipe.form}
        job = self.ask("POST", "/jobs", headers={"Idempotency-Key": key}, **body).json()
        return Accepted(job["id"], recipe, job["spec"]["dataset"], self.tries)

    def rows(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every result of a job, page by page."""
        cursor: dict[str, str] = {}
        while True:
            page = self.ask("GET", f"/jobs/{job_id}/results", params={"limit": 1000, **cursor}).json()
            yield from page["items"]
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}


@dataclass(frozen=True)
class Order:
    """One POST to be made; with its own data, or over a dataset that is there."""

    recipe: Recipe
    key: str
    dataset_id: str | None


class Room:
    """How much may be submitted: no more than was let in, and not while too many jobs are unfinished."""

    def __init__(self, database_url: str, unfinished: int) -> None:
        self._records = Records(database_url)
        self._unfinished = unfinished
        self._let_in = 0
        self._taken = 0
        self._turn = threading.Lock()

    def close(self) -> None:
        self._records.close()

    def let_in(self, orders: int) -> None:
        """So many in all from now on."""
        self._let_in = orders

    def take(self) -> bool:
        """Whether one more order may be sent now; then it counts as sent."""
        with self._turn:
            free = self._taken < self._let_in and self._records.count("jobs", UNENDED) < self._unfinished
            self._taken += free
            return free


class Crowd:
    """Several clients at once, working off a list of orders as far as there is room."""

    def __init__(
        self, client: Callable[[float], Client], orders: Sequence[Order], *, clients: int, deadline: float, room: Room
    ) -> None:
        self.accepted: list[Accepted] = []
        self.refused: list[str] = []
        self._client, self._deadline, self._room = client, deadline, room
        self._closed = False
        self._orders: SimpleQueue[Order] = SimpleQueue()
        for order in orders:
            self._orders.put(order)
        self._pool = ThreadPoolExecutor(clients, thread_name_prefix="client")
        self._running = [self._pool.submit(self._work_off) for _ in range(clients)]

    @property
    def done(self) -> bool:
        """Whether every order was accepted or refused."""
        return all(each.done() for each in self._running)

    def close(self) -> None:
        self._closed = True
        self._pool.shutdown()

    def _work_off(self) -> None:
        with closing(self._client(self._deadline)) as client:
            while (order := self._next()) is not None:
                try:
                    self.accepted.append(client.submit(order.recipe, order.key, order.dataset_id))
                except (UnexpectedAnswerError, TimeoutError) as error:
                    self.refused.append(f"{order.key}: {error}")

    def _next(self) -> Order | None:
        while not self._orders.empty() and time.monotonic() < self._deadline and not self._closed:
            if not self._room.take():
                time.sleep(_PAUSE_SECONDS)
                continue
            with suppress(Empty):
                return self._orders.get_nowait()
        return None
