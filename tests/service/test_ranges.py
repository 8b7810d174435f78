"""A part of an export is what stands there in the whole, whatever the format."""

import pytest

from service.errors import RangeError
from service.ranges import ByteRange
from store.blobs import Blobs
from tests.service.exporting import World
from tests.service_fixtures import Answer, ProblemOf

FORMATS = ("csv", "jsonl", "parquet", "npy", "webdataset", "open_clip")


def part(world: World, job: str, form: str, range_: str, **headers: str) -> Answer:
    headers = {"Range": range_, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return world.client.get(f"/jobs/{job}/export", params={"format": form}, headers=headers)


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_is_of_the_whole(world: World, job: str, form: str) -> None:
    whole = world.export(job, form)
    middle = len(whole) // 2
    for range_, start, stop in (
        (f"bytes={middle}-", middle, len(whole)),
        (f"bytes={middle}-{middle + 9}", middle, middle + 10),
        (f"bytes=3-{10 * len(whole)}", 3, len(whole)),
        ("bytes=-7", len(whole) - 7, len(whole)),
        (f"bytes={len(whole) - 1}-", len(whole) - 1, len(whole)),
    ):
        answer = part(world, job, form, range_)
        assert (answer.status_code, answer.content) == (206, whole[start:stop]), range_
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert answer.headers["content-length"] == str(stop - start)


def test_a_part_goes_with_the_tag_of_its_whole(world: World, job: str) -> None:
    whole = world.client.get(f"/jobs/{job}/export")
    assert whole.headers["accept-ranges"] == "bytes"
    etag = whole.headers["etag"]
    same = part(world, job, "csv", "bytes=5-", If_Range=etag)
    assert (same.status_code, same.headers["etag"], same.content) == (206, etag, whole.content[5:])
    other = part(world, job, "csv", "bytes=5-", If_Range='"of-another-release"')
    assert (other.status_code, other.content) == (200, whole.content)
    tags = {world.client.get(f"/jobs/{job}/export", params={"format": form}).headers["etag"] for form in FORMATS}
    assert len(tags) == len(FORMATS)


@pytest.mark.parametrize("range_", ["", "bytes", "bytes=-", "bytes=9-3", "bytes=0-1,5-6", "rows=3-", "bytes=a-"])
def test_what_is_no_range_is_the_whole(world: World, job: str, range_: str) -> None:
    answer = part(world, job, "csv", range_)
    assert (answer.status_code, answer.content) == (200, world.export(job, "csv"))


def test_nothing_is_after_the_end(world: World, job: str, problem_of: ProblemOf) -> None:
    size = len(world.export(job, "csv"))
    answer = part(world, job, "csv", f"bytes={size}-")
    assert (problem_of(answer)["status"], problem_of(answer)["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"
    with pytest.raises(RangeError):
        ByteRange(None, 0).within(size)


def test_no_image_is_read_to_know_how_long_the_whole_is(
    world: World, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.client.app.state.service.export_sizes._sizes.clear()  # type: ignore[attr-defined]
    reads = 0
    get_ranges = Blobs.get_ranges

    def counted(blobs: Blobs, *arguments: object) -> list[bytes]:
        nonlocal reads
        reads += 1
        return get_ranges(blobs, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Blobs, "get_ranges", counted)
    world.export(job, "webdataset")
    of_a_whole, reads = reads, 0
    assert part(world, job, "webdataset", "bytes=1000-").status_code == 206
    assert reads == of_a_whole > 0


def test_a_checkpoint_comes_in_parts_too(world: World, embeddings: str, problem_of: ProblemOf) -> None:
    dataset = world.client.get(f"/jobs/{embeddings}").json()["spec"]["dataset"]
    removal = world.job(task="removal", dataset=dataset, remove={"keys": ["0", "1"]})
    url = f"/jobs/{removal}/checkpoint"
    whole = world.client.get(url)
    middle = len(whole.content) // 2
    for if_range, status, content in (
        (whole.headers["etag"], 206, whole.content[middle:]),
        ('"another"', 200, whole.content),
    ):
        answer = world.client.get(url, headers={"Range": f"bytes={middle}-", "If-Range": if_range})
        assert (answer.status_code, answer.content) == (status, content)
    last = len(whole.content) - 1
    answer = world.client.get(url, headers={"Range": f"bytes=1-{last}"})
    assert answer.headers["content-range"] == f"bytes 1-{last}/{last + 1}"
    after = world.client.get(url, headers={"Range": f"bytes={last + 1}-"})
    assert problem_of(after)["status"] == 416
