"""Tars that lie about what they hold."""

import bz2
import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pytest

from readers.limits import Limits
from readers.refusals import UploadRefused
from readers.upload import UploadReader
from tests.readers.conftest import ReadUpload, Refusal, Tar, Tarred, WriteUpload

FILES = {"a.jpg": b"A" * 600, "a.txt": b"a", "b.jpg": b"B", "b.txt": b"b"}


def member(kind: bytes, name: str = "evil.jpg") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


def resummed(header: bytearray) -> bytearray:
    """A header with its checksum made right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return header


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.GNUTYPE_SPARSE, "of kind 'S'"),
        (b"?", "of kind '?'"),
    ],
)
def test_links_and_devices(tarred: Tarred, refusal: Refusal, kind: bytes, what: str) -> None:
    refused = refusal(tarred(FILES, members=(member(kind),)))
    assert refused.code == "unsafe_member"
    assert refused.message.startswith(f"evil.jpg is {what}; only ")


def test_folders_are_fine_and_names_that_point_outside_are_passed_over(tarred: Tarred, read: ReadUpload) -> None:
    files = {**FILES, "../c.jpg": b"C", "../c.txt": b"c", "/d.jpg": b"D", "/d.txt": b"d"}
    assert read(tarred(files, members=(member(tarfile.DIRTYPE, "x"),))).keys == ["a", "b"]


@pytest.mark.parametrize("length", [99, 100, 150, 300, 3000])
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tarred: Tarred, read: ReadUpload, length: int, tar_format: int) -> None:
    stem = "é/" + "n" * length
    found = read(
        tarred({f"{stem}.jpg": b"A", f"{stem}.txt": b"a"}, tar_format=tar_format), limits=Limits(max_key_bytes=4000)
    )
    assert found.keys == [stem]


def test_an_extended_header_may_not_be_large(upload: WriteUpload, tar: Tar, refusal: Refusal) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 5_000_000
    content = info.tobuf() + bytes(5_000_192) + tar(FILES)
    refused = refusal(upload(content))
    assert (refused.code, refused.message) == (
        "unreadable_archive",
        "unreadable archive: an extended header has 5000000 bytes",
    )


@pytest.mark.parametrize(
    "records",
    [b"0 a=b\n", b"x path=y\n", b"99999 path=y\n", b"6 path\n", b"2 \n", b"12 size=99x\n", b"22 GNU.sparse.major=1\n"],
)
def test_an_extended_header_that_is_broken(upload: WriteUpload, tar: Tar, refusal: Refusal, records: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    refused = refusal(upload(info.tobuf() + records.ljust(512, b"\0") + tar(FILES)))
    assert refused.code in ("unreadable_archive", "unsafe_member")


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"nonsense\0\0\0\0"])
def test_a_size_that_lies(upload: WriteUpload, tar: Tar, refusal: Refusal, size: bytes) -> None:
    content = bytearray(tar(FILES))
    header = content[:512]
    header[124:136] = size
    content[:512] = resummed(header)
    refused = refusal(upload(content))
    assert refused.code == "unreadable_archive"


def test_a_broken_header_in_the_middle(upload: WriteUpload, tar: Tar, refusal: Refusal) -> None:
    content = bytearray(tar(FILES))
    content[1536:1540] = b"\xff\xff\xff\xff"
    refused = refusal(upload(content))
    assert refused.message == "unreadable archive: the header at byte 1536 is broken"


@pytest.mark.parametrize("kept", [700, 1600, 2600])
def test_a_tar_cut_short(upload: WriteUpload, tar: Tar, refusal: Refusal, kept: int) -> None:
    refused = refusal(upload(tar(FILES)[:kept]))
    assert refused.code == "unreadable_archive"


def test_a_tar_without_its_end_and_one_with_rubbish_after_it_are_read(
    upload: WriteUpload, tar: Tar, read: ReadUpload
) -> None:
    content = tar(FILES)
    assert read(upload(content[:4608])).keys == ["a", "b"]
    assert read(upload(content + b"rubbish" * 1000)).keys == ["a", "b"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
@pytest.mark.parametrize("damage", [slice(20_000, None), slice(40, 60)])
def test_a_damaged_compressed_tar(
    upload: WriteUpload, tar: Tar, refusal: Refusal, pack: Callable[[bytes], bytes], damage: slice
) -> None:
    content = bytearray(pack(tar({"a.txt": b"a", "a.jpg": random.Random(0).randbytes(50_000)})))
    del content[damage]
    refused = refusal(upload(content))
    assert refused.code == "unreadable_archive"
    assert refused.message.startswith("unreadable archive: ")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
def test_a_bomb_stops_at_the_ratio_and_leaves_nothing_behind(
    upload: WriteUpload, tar: Tar, refusal: Refusal, pack: Callable[[bytes], bytes]
) -> None:
    content = pack(tar({"a.jpg": bytes(20 << 20), "a.txt": b"a"}))
    refused = refusal(upload(content), limits=Limits(ratio_floor_bytes=1 << 20))
    assert (refused.code, refused.message) == (
        "decompression_bomb",
        "the archive unpacks to more than 200 times its size",
    )


def test_a_compressed_tar_larger_than_allowed(tarred: Tarred, refusal: Refusal) -> None:
    assert refusal(tarred(FILES, "w:gz"), limits=Limits(max_total_bytes=1000)).code == "too_large"


def test_gzip_around_something_else(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(gzip.compress(b"file_name,caption\n" * 100)), filename="metadata.csv.gz")
    assert refused.code == "unknown_format"
    assert "gzip around something that is not a tar" in refused.message


def test_too_many_members(tarred: Tarred, refusal: Refusal) -> None:
    assert refusal(tarred(FILES), limits=Limits(max_members=3)).code == "too_many_members"


def test_names_that_are_not_utf8_can_be_rejected_and_kept(tar: Tar, upload: WriteUpload, read: ReadUpload) -> None:
    content = bytearray(tar(FILES))
    header = content[:512]
    header[0:1] = b"\xe9"
    content[:512] = resummed(header)
    found = read(upload(content))
    assert found.keys == ["b"]
    assert "\ufffd.jpg: no caption (.txt or .json) beside it" in found.reasons
    "".join(found.reasons).encode()


def test_many_members_take_little_memory(upload: WriteUpload) -> None:
    buffer = io.BytesIO()
    block = tarfile.TarInfo("0000000.jpg").tobuf()
    for n in range(5_000):
        header = bytearray(block)
        header[:7] = b"%07d" % n
        buffer.write(resummed(header))
    path = upload(buffer.getvalue() + tarfile.TarInfo("x.txt").tobuf())
    UploadReader(path).close()
    tracemalloc.start()
    try:
        with UploadReader(path):
            held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 5_000 * 100


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_refused_or_rejected_and_nothing_else(upload: WriteUpload, tar: Tar, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(tar(FILES, tar_format=tarfile.PAX_FORMAT if seed % 2 else tarfile.GNU_FORMAT))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(0, 3584)
        content[at] = rng.randrange(256)
        start = at // 512 * 512
        content[start : start + 512] = resummed(content[start : start + 512])
    with suppress(UploadRefused), UploadReader(upload(content)) as reader:
        list(reader)
