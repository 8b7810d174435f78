"""Archives: names, links, devices, encryption, nesting, bombs, directories that lie."""

import bz2
import gzip
import stat
import struct
import tarfile
import zipfile
from functools import partial

import pyarrow as pa

from tests.hostile.case import ROW, Case, fixed, shard, zip_of
from tests.readers.conftest import tar_bytes
from tests.service_fixtures import picture

GOOD: dict[str, bytes | str] = {"metadata.csv": ROW, "good.png": picture(0), "evil.png": picture(1)}
CENTRAL, END = b"PK\1\2", b"PK\5\6"


def _special(kind: int) -> bytes:
    member = zipfile.ZipInfo("evil.png")
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    return zip_of({"metadata.csv": ROW, "good.png": picture(0), member: b"/etc/passwd"})


def _escaping(name: str) -> bytes:
    rows = f'file_name,caption\ngood.png,fine\n"{name}",out\n'
    return zip_of({"metadata.csv": rows, "good.png": picture(0), name: picture(1)})


def _last_entry(at: int, content: bytes, files: dict[str, bytes | str] | None = None, last: bool = True) -> bytes:
    """A zip with bytes of an entry of its directory replaced."""
    raw = bytearray(zip_of(files or GOOD))
    begin = (raw.rfind if last else raw.find)(CENTRAL) + at
    raw[begin : begin + len(content)] = content
    return bytes(raw)


def _overlapping() -> bytes:
    raw = zip_of(GOOD)
    first = raw.find(CENTRAL)
    return _last_entry(42, raw[first + 42 : first + 46])


def _member(kind: bytes, outside: str = "/etc/passwd") -> bytes:
    info = tarfile.TarInfo("evil.png")
    info.type, info.linkname = kind, outside[:100]
    return tar_bytes(shard(), members=(info,))


def _extended(size: int, records: bytes = b"") -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf() + records.ljust(512, b"\0") + tar_bytes(shard())


def _tar_size(size: bytes) -> bytes:
    raw = bytearray(tar_bytes({"evil.png": b"x" * 600}))
    raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def _zip64_far_away() -> bytes:
    raw = zip_of(GOOD)
    at = raw.rfind(END)
    return raw[:at] + struct.pack("<4sLQL", b"PK\6\7", 0, 1 << 60, 1) + raw[at:]


def _many_names(count: int) -> bytes:
    raw = zip_of(GOOD)
    at = raw.rfind(END)
    return raw[: at + 8] + struct.pack("<HH", count, count) + raw[at + 12 :]


BOMB = bytes(200 << 20)
LONG_TABLE = b"file_name,caption\n" + bytes(200 << 20)

CASES = [
    *(
        Case(f"a zip whose member is called {shown}", "rejected", (name,), fixed(_escaping, name), kept=1)
        for shown, name in {
            "dot dot": "../../evil.png",
            "root": "/evil.png",
            "dot dot within": "x/../../../evil.png",
            "backslashes": "..\\..\\evil.png",
        }.items()
    ),
    Case("a zip whose member is called by a path that exists", "rejected", ("canary",), _escaping, kept=1),
    Case(
        "a tar whose members point outside",
        "ready",
        (),
        lambda outside: tar_bytes(shard(**{"../../evil.png": b"x", "../../evil.txt": b"x", f"{outside}.png": b"x"})),
        "x.tar",
        kept=1,
    ),
    *(
        Case(f"a zip with {what}", "failed", ("evil.png", "link or a device"), fixed(_special, kind))
        for what, kind in {"a link": stat.S_IFLNK, "a device": stat.S_IFCHR, "a pipe": stat.S_IFIFO}.items()
    ),
    *(
        Case(f"a tar with {what}", "failed", ("evil.png", what), partial(_member, kind), "x.tar")
        for what, kind in {
            "a symbolic link": tarfile.SYMTYPE,
            "a hard link": tarfile.LNKTYPE,
            "a device": tarfile.CHRTYPE,
            "a FIFO": tarfile.FIFOTYPE,
            "of kind 'S'": tarfile.GNUTYPE_SPARSE,
        }.items()
    ),
    Case("an encrypted zip", "failed", ("encrypted", ".png"), lambda _: _last_entry(8, b"\1")),
    *(
        Case(f"a zip packed by {name}", "failed", ("metadata.csv", name), fixed(zip_of, GOOD, method))
        for name, method in {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}.items()
    ),
    Case("a zip in a zip", "failed", (".zip",), lambda _: zip_of({"inner.zip": zip_of(GOOD)})),
    Case(
        "a tar in a tar in a zip",
        "failed",
        (".tar",),
        lambda _: zip_of({"0.tar": tar_bytes({"0.tar": tar_bytes(shard())})}),
    ),
    Case(
        "a zip of a hundred zips", "failed", (".zip",), lambda _: zip_of({f"{n}.zip": zip_of(GOOD) for n in range(100)})
    ),
    Case("entries that share their bytes", "failed", ("overlap",), lambda _: _overlapping()),
    Case("a zip bomb", "failed", ("metadata.csv", "200 times"), lambda _: zip_of({"metadata.csv": LONG_TABLE})),
    *(
        Case(
            f"a bomb of {name}",
            "failed",
            ("200 times",),
            fixed(pack, tar_bytes({"a.png": BOMB, "a.txt": b"a"})),
            "x",
        )
        for name, pack in {
            "gzip": lambda raw: gzip.compress(raw, 1),
            "bzip2": lambda raw: bz2.compress(raw, 1),
            "zstandard": lambda raw: pa.compress(raw, "zstd", asbytes=True),
        }.items()
    ),
    Case(
        "gzip in gzip in gzip",
        "failed",
        ("gzip",),
        lambda _: gzip.compress(gzip.compress(gzip.compress(tar_bytes(shard())))),
        "x.gz",
    ),
    Case(
        "an entry that says it is small",
        "rejected",
        ("evil.png", "checksum"),
        lambda _: _last_entry(24, struct.pack("<L", 50)),
        kept=1,
    ),
    Case(
        "an entry that says it is large",
        "rejected",
        ("evil.png",),
        lambda _: _last_entry(24, struct.pack("<L", 9999)),
        kept=1,
    ),
    Case(
        "an entry of four gigabytes",
        "rejected",
        ("evil.png", "67108864"),
        lambda _: _last_entry(24, b"\xfe\xff\xff\xff"),
        kept=1,
    ),
    Case(
        "an image of 65 megabytes",
        "rejected",
        ("evil.png", "67108864"),
        lambda _: zip_of(GOOD | {"evil.png": bytes(65 << 20)}),
        kept=1,
    ),
    Case("an entry beyond the file", "failed", ("overlap",), lambda _: _last_entry(42, b"\xff\xff\xff\x0f")),
    Case("a directory of a thousand absent entries", "failed", ("unreadable archive",), lambda _: _many_names(1000)),
    Case("a zip64 record an exabyte away", "failed", ("unreadable archive",), lambda _: _zip64_far_away()),
    Case("a zip cut short", "failed", ("unreadable archive",), lambda _: zip_of(GOOD)[:-40]),
    Case("an empty zip", "failed", ("no files",), lambda _: zip_of({})),
    Case(
        "a name of 60 kilobytes",
        "failed",
        ("name",),
        lambda _: zip_of({"metadata.csv": ROW, "n" * 60_000 + ".png": b""}),
    ),
    Case(
        "two tables of one name",
        "failed",
        ("metadata.csv",),
        lambda _: zip_of({"metadata.csv": ROW, "metadata.jsonl": "{}", **GOOD}),
    ),
    Case(
        "the table as an image",
        "rejected",
        ("metadata.csv",),
        lambda _: zip_of({"metadata.csv": "file_name,caption\nmetadata.csv,x\n", "a.png": picture(0)}),
    ),
    Case("a tar cut short", "failed", ("unreadable archive",), lambda _: tar_bytes(shard())[:700], "x.tar"),
    Case(
        "a tar member of eight gigabytes",
        "failed",
        ("unreadable archive",),
        lambda _: _tar_size(b"77777777777\0"),
        "x.tar",
    ),
    Case(
        "a tar member of negative size", "failed", ("unreadable archive",), lambda _: _tar_size(b"\xff" * 12), "x.tar"
    ),
    Case(
        "an extended header of five gigabytes",
        "failed",
        ("unreadable archive", "cut short"),
        lambda _: _extended(5 << 30),
        "x.tar",
    ),
    Case(
        "an extended header that is no header",
        "failed",
        ("extended header",),
        lambda _: _extended(20, b"99999 path=y\n"),
        "x.tar",
    ),
]
