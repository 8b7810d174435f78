"""An export that is cut is taken up, by the same call or by another, and is the same to the byte."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ecif_client import ApiError, Client, UsageError
from tests.clients.cutting import Cutting

FORMATS = ("csv", "jsonl", "parquet")


@pytest.fixture
def whole(server: str, job: str) -> Callable[[str], bytes]:
    """An export as it comes in one go."""
    return lambda form: httpx.get(f"{server}/jobs/{job}/export", params={"format": form}, trust_env=False).content


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_is_cut_goes_on(
    job: str, whole: Callable[[str], bytes], cutting: Callable[..., Cutting], tmp_path: Path, form: str
) -> None:
    expected = whole(form)
    way = cutting(down=len(expected) // 2 + 500, connections=2)
    with Client(way.url) as client:
        assert client.export(job, tmp_path / "scores", format=form) == len(expected)
    assert (tmp_path / "scores").read_bytes() == expected
    assert list(tmp_path.iterdir()) == [tmp_path / "scores"]
    assert way.passed["down"] < len(expected) + 4000  # nothing came twice but headers


def test_a_call_that_was_killed_is_followed_by_another(
    job: str,
    whole: Callable[[str], bytes],
    client: Client,
    server: str,
    cutting: Callable[..., Cutting],
    tmp_path: Path,
) -> None:
    expected, scores = whole("csv"), tmp_path / "scores.csv"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Client(cutting(down=len(expected) // 2).url) as killed, pytest.raises(KeyboardInterrupt):
        killed.export(job, scores, seen=stop)
    assert not scores.exists()
    (part,) = tmp_path.glob("scores.csv.*.part")
    came = part.stat().st_size
    assert 0 < came < len(expected)
    places: list[int] = []
    client.export(job, scores, seen=lambda done, total: places.append(done))
    assert places[0] >= came
    assert scores.read_bytes() == expected
    part.write_bytes(expected)  # whole, and not yet in its place
    client.export(job, scores)
    assert scores.read_bytes() == expected


def test_what_another_version_left_is_thrown_away(
    job: str, whole: Callable[[str], bytes], client: Client, tmp_path: Path
) -> None:
    (tmp_path / f"scores.csv.{'0' * 32}.part").write_bytes(b"something else")
    client.export(job, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes() == whole("csv")
    assert list(tmp_path.iterdir()) == [tmp_path / "scores.csv"]


def test_what_cannot_be_written_is_said(job: str, client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        client.export(job, tmp_path / "absent" / "scores.csv")
    with pytest.raises(UsageError, match="is a folder"):
        client.export(job, tmp_path)
    with pytest.raises(ApiError, match="csv"):
        client.export(job, tmp_path / "scores", format="xls")
    assert list(tmp_path.iterdir()) == []
