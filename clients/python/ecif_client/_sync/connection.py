"""Requests to one service, sent again while that may help."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from tenacity import Retrying

from ecif_client.address import checked_key, checked_url
from ecif_client.errors import object_of, raise_for, reaching
from ecif_client.retrying import OnRetry, policy


class Connection:
    """Where the service is, who asks, and how often."""

    def __init__(self, url: str, key: str | None, timeout: float, tries: int, on_retry: OnRetry | None) -> None:
        self.url = checked_url(url)
        headers = {"Authorization": f"Bearer {checked_key(key)}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        self.tries = tries
        self._policy = policy(tries, on_retry)

    def close(self) -> None:
        self.http.close()

    def again(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function that asks, and once more for as long as its error says that this may help."""
        return Retrying(**self._policy)(function, *arguments, **named)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request that may be sent twice; the arguments are those of httpx."""
        answer: httpx.Response = self.again(self.once, method, path, **request)
        return answer

    def object(self, method: str, path: str, *fields: str, **request: Any) -> Any:
        """The JSON object of an answer, which has these fields."""
        return object_of(self.ask(method, path, **request), self.url, *fields)

    def once(self, method: str, path: str, **request: Any) -> httpx.Response:
        with reaching(self.url):
            answer = self.http.request(method, path, **request)
        raise_for(answer, self.url)
        return answer

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """An answer whose body is read in the block."""
        with reaching(self.url):
            with self.http.stream(method, path, **request) as answer:
                if not answer.is_success:
                    answer.read()
                    raise_for(answer, self.url)
                yield answer
