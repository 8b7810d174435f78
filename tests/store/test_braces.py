"""Several addresses in one URI: what they are, and that too many are counted before they are made."""

import time

import pytest
from webdataset.shardlists import expand_urls

from store.errors import InvalidError
from store.references import MOST_FILES, check_reference, check_references, expanded
from store.settings import Settings


@pytest.mark.parametrize(
    ("uri", "count"),
    [
        ("s3://b/cc3m/{00000..00099}.tar", 100),
        ("https://h/data-{0000..0003}.parquet", 4),
        ("https://h/{train,val}.tar", 2),
        ("https://h/{train/{000..002},val/{0,1}}.tar", 5),
        ("s3://b/{a..e}{10..1..3}.tar", 20),
        ("s3://b/{x}.tar", 1),
        ("s3://b/{,x{1..2}}/{3..3}", 3),
        ("https://h/a,b.tar", 1),
        ("s3://b/{0..9999}", 10_000),
    ],
)
def test_they_are_what_webdataset_reads(uri: str, count: int) -> None:
    found = expanded(uri)
    assert found == list(expand_urls(uri))
    assert len(found) == count


@pytest.mark.parametrize(
    "uri",
    [
        "s3://b/{0..9999999999}",
        "s3://b/{0..10000}",
        "s3://b/{0..99}{0..999}",
        "s3://b/{x{0..9999}{0..9999},y}",
        "s3://b/{-99999999999999999999..99999999999999999999..2}",
        "s3://b/" + "{0,1}" * 700,
        "s3://b/" + "{" * 1500 + "a,b" + "}" * 1500,
        "s3://b/}{x{0..9999999999}",
        "s3://b/{0..3",
        "s3://b/0}.tar",
    ],
)
def test_too_many_or_unmatched_are_refused_at_once(uri: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InvalidError, match=f"{MOST_FILES:,}|braces"):
        expanded(uri)
    assert time.monotonic() - begun < 1


def test_what_is_allowed_is_asked_of_each(settings: Settings) -> None:
    listed = settings.model_copy(update={"ecif_sources": "s3://public/"})
    check_references("s3://public/{a,b}/{0..9}.tar", listed, trusted=False)
    with pytest.raises(InvalidError, match=r"s3://secret/x: .*only from"):
        check_references("s3://{public,secret}/x", listed, trusted=False)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("https://h/{a,b}/", "https://h/a/: .*only folders of buckets"),
        ("https://h/folder/", "only folders of buckets"),
        ("https://h/{a,a}.tar", "twice"),
        ("https://h/x?part={0..3}", "twice"),
        ("https://h/{a,../b}.tar", r"\.\./b.tar: .*elsewhere"),
        ("https://h/%2e%2e/x", "elsewhere"),
        ("s3://b/x%00y", "elsewhere"),
        ("{https://h/a,s3://b/c}", "fetched from"),
        ("https://[{::1,::2}]/x", "no URI"),
        ("https://h{,[}/x", "no URI"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(settings: Settings, uri: str, says: str) -> None:
    with pytest.raises(InvalidError, match=says) as refused:
        check_references(uri, settings, trusted=True)
    assert refused.value.param == "uri"


def test_a_model_is_one_file(settings: Settings) -> None:
    with pytest.raises(InvalidError, match="names no file"):
        check_reference("s3://b/folder/", settings, trusted=True)
