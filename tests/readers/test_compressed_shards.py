"""Webdataset shards that are compressed one by one, in an archive: read as plain ones are, and as bounded."""

import bz2
import gzip
from collections.abc import Callable

import pyarrow as pa
import pytest

from readers.limits import Limits
from tests.readers.conftest import ReadUpload, Refusal, Zipped, tar_bytes
from tests.readers.writers import jpeg


def zstd(content: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstd,
}


def shard(*numbers: int) -> bytes:
    return tar_bytes({f"{n}.{kind}": content for n in numbers for kind, content in (("png", b"i"), ("txt", b"x"))})


@pytest.mark.parametrize("ending", PACKED)
def test_every_compression(zipped: Zipped, read: ReadUpload, ending: str) -> None:
    pack = PACKED[ending]
    found = read(zipped({f"0{ending}": pack(shard(1, 2)), f"1{ending}": pack(shard(3)), f"3{ending}": b"no tar"}))
    assert found.keys == ["1", "2", "3"]
    assert found.missing_shards == (f"2{ending}",)
    assert [reason.partition(":")[0] for reason in found.reasons] == [f"3{ending}"]


@pytest.mark.parametrize("ending", PACKED)
def test_a_shard_cut_short_gives_what_came_before(zipped: Zipped, read: ReadUpload, ending: str) -> None:
    """Of a compression by blocks, that is what its whole blocks hold."""
    many = {f"{n:04d}.{kind}": jpeg(n) if kind == "jpg" else b"x" for n in range(1500) for kind in ("jpg", "txt")}
    content = PACKED[ending](tar_bytes(many))
    found = read(zipped({f"0{ending}": content[: len(content) * 9 // 10], f"1{ending}": PACKED[ending](shard(9999))}))
    assert found.keys[-1] == "9999"
    assert 500 < len(found.keys) < 1500
    assert found.keys[:-1] == [f"{n:04d}" for n in range(len(found.keys) - 1)]
    assert [one.rejection for one in found.rejected if one.reason.startswith(f"0{ending}: ")] == ["unreadable_shard"]


@pytest.mark.parametrize("ending", PACKED)
def test_a_bomb_is_refused_by_its_name(zipped: Zipped, refusal: Refusal, ending: str) -> None:
    content = PACKED[ending](tar_bytes({"a.png": bytes(2_000_000), "a.txt": b"x"}))
    refused = refusal(zipped({f"0{ending}": content}), limits=Limits(ratio_floor_bytes=100_000))
    assert refused.code == "decompression_bomb"
    assert refused.message == f"0{ending}: the archive unpacks to more than 200 times its size"


def test_all_shards_together_are_bounded(zipped: Zipped, refusal: Refusal) -> None:
    packed = gzip.compress(tar_bytes({"a.png": bytes(40_000), "a.txt": b"x"}))
    refused = refusal(zipped({f"{n}.tar.gz": packed for n in range(4)}), limits=Limits(max_total_bytes=100_000))
    assert (refused.code, refused.message) == ("too_large", "1.tar.gz: the upload holds more than 100000 bytes")
