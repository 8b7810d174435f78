"""`ECIF_SOURCES` admits what is at its hosts and in its folders, however an address is written, and nothing beside."""

import pytest

from store.errors import InvalidError
from store.references import check_reference, check_references
from store.settings import Settings

LISTED = "https://data.example.com https://cdn.example.com:8443/public/ s3://team s3://shared/sets/ours"


@pytest.mark.parametrize(
    "uri",
    [
        "https://data.example.com/a.zip",
        "https://DATA.Example.COM/a.zip",
        "https://data.example.com:443/a.zip",
        "https://data.example.com./a.zip?signature=x",
        "https://cdn.example.com:8443/public/deep/a.zip",
        "https://cdn.example.com:8443/p%75blic/a.zip",
        "s3://team/a.zip",
        "s3://shared/sets/ours",
        "s3://shared/sets/ours/a.zip",
    ],
)
def test_what_is_listed_is_admitted(uri: str) -> None:
    check_reference(uri, Settings(ecif_sources=LISTED), trusted=False)


@pytest.mark.parametrize(
    "uri",
    [
        "https://data.example.com.evil.net/a.zip",
        "https://data.example.community/a.zip",
        "https://evil.net/data.example.com/a.zip",
        "https://data.example.com@evil.net/a.zip",
        "https://user:data.example.com@evil.net/a.zip",
        "https://data.example.com%2eevil.net/a.zip",
        "https://data.example.com\\@evil.net/a.zip",
        "https://data.example.com\\.evil.net/a.zip",
        "https://data.example.com:8443/a.zip",
        "https://cdn.example.com/public/a.zip",
        "https://cdn.example.com:8443/public-not/a.zip",
        "https://cdn.example.com:8443/Public/a.zip",
        "https://cdn.example.com:8443/public/../secret/a.zip",
        "https://cdn.example.com:8443/public/%2e%2e/secret/a.zip",
        "https://cdn.example.com:8443/public/%252e%252e/secret/a.zip",
        "https://cdn.example.com:8443/public/%" + "25" * 1900 + "2e/a.zip",
        "https://cdn.example.com:8443/public/..%2fsecret/a.zip",
        "https://cdn.example.com:8443/public/..%5csecret/a.zip",
        "https://cdn.example.com:8443/public/..;x/secret/a.zip",
        "https://cdn.example.com:8443/public%2fa.zip",
        "https://cdn.example.com:8443//public/a.zip",
        "https://cdn.example.com:8443/",
        "s3://team-secrets/a.zip",
        "s3://TEAM/a.zip",
        "gs://team/a.zip",
        "s3://shared/sets/ours-not/a.zip",
        "s3://shared/sets/a.zip",
        "s3://shared/sets%2fours/a.zip",
        "https://team/a.zip",
    ],
)
def test_what_only_looks_like_it_is_not(uri: str) -> None:
    for trusted in (True, False):
        with pytest.raises(InvalidError):
            check_reference(uri, Settings(ecif_sources=LISTED), trusted=trusted)


def test_folders_and_braces_are_held_to_the_same() -> None:
    settings = Settings(ecif_sources=LISTED)
    for uri in ("s3://team/", "s3://shared/sets/ours/", "https://data.example.com/{0..9}.tar"):
        check_references(uri, settings, trusted=False)
    for uri in ("s3://shared/", "s3://shared/sets/", "s3://shared/sets/{ours,theirs}/", "s3://team{,-secrets}/a.zip"):
        with pytest.raises(InvalidError):
            check_references(uri, settings, trusted=False)


@pytest.mark.parametrize(
    "entry", ["data.example.com", "ftp://host", "https://", "https://user@host/", "https://host/?x", "s3://team/../x"]
)
def test_an_entry_that_is_no_source_stops_the_service_where_it_starts(entry: str) -> None:
    with pytest.raises(ValueError, match="ecif_sources"):
        Settings(ecif_sources=f"s3://team {entry}")
