"""Zips that lie about what they hold."""

import io
import random
import stat
import struct
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from readers.limits import Limits
from readers.refusals import UploadRefused
from readers.upload import UploadReader
from tests.readers.conftest import ReadUpload, Refusal, WriteUpload

CSV = b"file_name,caption\na.png,x\nb.png,y\n"


def zip_bytes(
    files: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED
) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return bytearray(buffer.getvalue())


def dataset(compression: int = zipfile.ZIP_DEFLATED, image: bytes = b"A" * 100) -> bytearray:
    return zip_bytes([("metadata.csv", CSV), ("a.png", image), ("b.png", b"B" * 100)], compression)


def special(mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("evil.png")
    member.create_system = 3
    member.external_attr = (mode | 0o777) << 16
    return member


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices(upload: WriteUpload, refusal: Refusal, kind: int) -> None:
    refused = refusal(upload(zip_bytes([("metadata.csv", CSV), (special(kind), b"/etc/passwd")])))
    assert (refused.code, refused.message) == ("unsafe_member", "evil.png is a link or a device; only files are read")


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "..\\a.png"])
def test_names_that_point_outside_are_not_found(
    upload: WriteUpload, read: ReadUpload, tmp_path: Path, name: str
) -> None:
    rows = f'file_name,caption\n"{name}",x\n'.encode()
    found = read(upload(zip_bytes([("metadata.csv", rows), (name, b"A")])))
    assert found.pairs == []
    assert f"no file {name} in the archive" in found.reasons[0]


def test_encryption(upload: WriteUpload, refusal: Refusal) -> None:
    content = dataset()
    at = content.rfind(b"PK\1\2")
    content[at + 8] |= 1
    refused = refusal(upload(content))
    assert (refused.code, refused.message) == ("encrypted_archive", "b.png is encrypted")


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
def test_other_compressions(upload: WriteUpload, refusal: Refusal, method: int, name: str) -> None:
    refused = refusal(upload(dataset(method)))
    assert refused.code == "unsupported_compression"
    assert f"metadata.csv is compressed with {name}; use deflate or store it" in refused.message


def test_entries_that_share_their_bytes(upload: WriteUpload, refusal: Refusal) -> None:
    """As in David Fifield's zip bomb: every entry of the directory names the same data."""
    content = dataset()
    first, second = content.find(b"PK\1\2"), content.rfind(b"PK\1\2")
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    refused = refusal(upload(content))
    assert (refused.code, refused.message) == ("unreadable_archive", "unreadable archive: its entries overlap")


def test_an_entry_beyond_the_data(upload: WriteUpload, refusal: Refusal) -> None:
    content = dataset()
    at = content.rfind(b"PK\1\2")
    content[at + 42 : at + 46] = struct.pack("<L", len(content))
    assert "its entries overlap" in refusal(upload(content)).message


def test_a_bomb_stops_at_the_ratio(upload: WriteUpload, refusal: Refusal) -> None:
    content = zip_bytes([("metadata.csv", b"file_name,caption\n" + b"a,b\n" * 300_000)])
    refused = refusal(upload(content), limits=Limits(ratio_floor_bytes=1 << 16))
    assert refused.code == "decompression_bomb"
    assert refused.message == "metadata.csv unpacks to more than 200 times its size"


def test_small_files_that_pack_well_are_fine(upload: WriteUpload, read: ReadUpload) -> None:
    rows = b"file_name,caption\n" + b"a.png,x\n" * 10_000
    assert len(read(upload(zip_bytes([("metadata.csv", rows), ("a.png", b"A")]))).pairs) == 10_000


def test_a_size_that_lies_low_is_found_out(upload: WriteUpload, read: ReadUpload) -> None:
    content = dataset()
    at = content.rfind(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<L", 50)
    assert read(upload(content)).reasons == ["row 2 of metadata.csv, line 3: b.png does not match its checksum"]


def test_a_size_that_lies_high_is_found_out(upload: WriteUpload, read: ReadUpload) -> None:
    content = dataset()
    at = content.rfind(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<L", 1000)
    assert read(upload(content)).reasons == ["row 2 of metadata.csv, line 3: b.png ends too early"]


def test_a_directory_that_promises_too_much(upload: WriteUpload, refusal: Refusal) -> None:
    content = dataset()
    at = content.rfind(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<L", 0xFFFFFFFE)
    refused = refusal(upload(content), limits=Limits(max_total_bytes=1 << 30))
    assert refused.code == "too_large"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_image_is_one_rejected_pair(upload: WriteUpload, read: ReadUpload, compression: int) -> None:
    content = dataset(compression, image=bytes(random.Random(0).randbytes(1000)))
    at = content.find(b"a.png", content.find(b"PK\3\4", 10)) + 200
    content[at : at + 50] = bytes(50)
    found = read(upload(content))
    assert found.keys == ["b.png"]
    assert found.reasons[0].startswith("row 1 of metadata.csv, line 2: a.png")


def test_a_damaged_table_refuses_the_upload(upload: WriteUpload, refusal: Refusal) -> None:
    content = zip_bytes([("metadata.csv", CSV * 100)])
    content[50:70] = bytes(20)
    refused = refusal(upload(content))
    assert refused.code == "unreadable_archive"
    assert refused.message.startswith("unreadable archive: ")


def test_a_lost_local_header(upload: WriteUpload, read: ReadUpload) -> None:
    content = dataset()
    at = content.find(b"PK\3\4", 10)
    content[at : at + 4] = b"xxxx"
    assert "a.png is not where the archive says" in read(upload(content)).reasons[0]


@pytest.mark.parametrize("kept", [10, 100, 0.5, -1, -30])
def test_a_zip_cut_short(upload: WriteUpload, refusal: Refusal, kept: float) -> None:
    content = dataset()
    cut = content[: int(len(content) * kept) if isinstance(kept, float) else kept]
    refused = refusal(upload(cut))
    assert refused.code == "unreadable_archive"
    assert refused.message.startswith("unreadable archive: ")


def test_too_many_members(upload: WriteUpload, refusal: Refusal) -> None:
    refused = refusal(upload(dataset()), limits=Limits(max_members=2))
    assert (refused.code, refused.message) == ("too_many_members", "the archive has more than 2 members")


def test_names_that_take_too_much_memory(upload: WriteUpload, refusal: Refusal) -> None:
    content = zip_bytes([("metadata.csv", CSV)] + [(f"{n}" * 1000, b"") for n in range(4)])
    assert refusal(upload(content), limits=Limits(max_index_bytes=3000)).code == "too_many_members"
    assert refusal(upload(content), limits=Limits(max_name_bytes=100)).code == "unsafe_member"


def test_one_image_read_for_every_row_runs_into_the_total(upload: WriteUpload, refusal: Refusal) -> None:
    rows = b"file_name,caption\n" + b"a.png,x\n" * 100
    content = zip_bytes([("metadata.csv", rows), ("a.png", bytes(1000))])
    refused = refusal(upload(content), limits=Limits(max_total_bytes=20_000))
    assert (refused.code, refused.message) == ("too_large", "the upload holds more than 20000 bytes")


def test_zip64(upload: WriteUpload, read: ReadUpload) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in (("metadata.csv", CSV), ("a.png", b"A"), ("b.png", b"B")):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(file)
    content = bytearray(buffer.getvalue())
    at = content.find(b"PK\1\2")
    assert read(upload(content)).keys == ["a.png", "b.png"]
    content[at + 20 : at + 28] = b"\xff" * 8  # sizes said to be in a zip64 field that is not there
    with pytest.raises(UploadRefused):
        list(UploadReader(upload(content)))


def test_more_entries_than_sixteen_bits_count(upload: WriteUpload, read: ReadUpload) -> None:
    files = [("metadata.csv", CSV), ("a.png", b"A"), ("b.png", b"B")] + [(f"{n}.jpg", b"") for n in range(65_600)]
    found = read(upload(zip_bytes(files, zipfile.ZIP_STORED)))
    assert (found.keys, found.unreferenced) == (["a.png", "b.png"], 65_600)


def test_a_zip64_end_record_that_is_not_there(upload: WriteUpload, refusal: Refusal) -> None:
    content = dataset()
    end = content.rfind(b"PK\5\6")
    content[end:end] = struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 60, 1)
    assert refusal(upload(content)).code == "unreadable_archive"


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_refused_or_rejected_and_nothing_else(upload: WriteUpload, seed: int) -> None:
    rng = random.Random(seed)
    content = dataset()
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(4, len(content))] = rng.randrange(256)
    with suppress(UploadRefused), UploadReader(upload(content)) as reader:
        list(reader)
