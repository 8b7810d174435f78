"""Where a connection goes, and by which name."""

import pytest

from store.errors import InvalidError
from worker.outbound.addresses import Pinned


@pytest.mark.parametrize(
    ("url", "goes_to", "host"),
    [
        ("https://bücher.example:8443/a?b=c", "https://192.0.2.1:8443/a?b=c", "xn--bcher-kva.example:8443"),
        ("https://hooks.example.org/x", "https://192.0.2.1/x", "hooks.example.org"),
    ],
)
def test_by_its_address_under_its_own_name(monkeypatch: pytest.MonkeyPatch, url: str, goes_to: str, host: str) -> None:
    monkeypatch.setattr(
        "worker.outbound.addresses.socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("192.0.2.1", 443))]
    )
    pinned = Pinned(url, private_too=True)
    assert (str(pinned.url), pinned.headers["Host"]) == (goes_to, host)
    assert pinned.extensions == {"sni_hostname": host.partition(":")[0]}


def test_what_no_client_could_ask_for_is_refused_with_a_reason() -> None:
    with pytest.raises(InvalidError, match="URI"):
        Pinned("https://-\u0301.example/x", private_too=True)
