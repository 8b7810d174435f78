"""What the processes that decode hostile files could do if one of their libraries were taken over."""

import contextlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from readers.archives.member_bytes import Extent
from readers.limits import DecoderLimits, Limits
from readers.refusals import UploadRefused
from readers.sandbox import child, confinement
from readers.sandbox.confinement import confined_environment
from readers.sandbox.image_checks import Decoder, Refused
from readers.sandbox.image_decoding import FORMATS, Inspected
from readers.tables.parquet import parquet_file
from store.settings import Settings
from tests.service_fixtures import picture

SIZES = (64, 256)

TRIES = """
import ctypes, json, os, signal, socket, subprocess, sys

def tries():
    libc = ctypes.CDLL(None, use_errno=True)
    def call(number, *arguments):
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "call")
    def connect():
        with socket.socket() as connection:
            connection.connect(("127.0.0.1", {port}))
    def threads():
        if len(os.listdir("/proc/self/task")) > 1: return
        raise PermissionError
    parent = os.getppid()
    ways = dict(
        environment=lambda: open(f"/proc/{{parent}}/environ", "rb").read(1),
        memory=lambda: open(f"/proc/{{parent}}/mem", "rb"),
        descriptors=lambda: os.listdir(f"/proc/{{parent}}/fd"),
        blob=lambda: open({blob!r}, "rb"),
        blobs=lambda: os.listdir(os.path.dirname({blob!r})),
        write=lambda: open({blob!r} + ".new", "wb"),
        users=lambda: open("/etc/passwd"),
        tcp=connect,
        udp=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        unix=lambda: socket.socket(socket.AF_UNIX),
        program=lambda: os.execv("/bin/sh", ["sh", "-c", "exit 0"]),
        end=lambda: os.kill(parent, 0),
        trace=lambda: call({ptrace}, 0x4206, parent, 0, 0),  # PTRACE_SEIZE stops nothing
        root=lambda: os.setuid(0) if os.getuid() else None,
        threads=threads,
    )
    done = []
    for name, way in ways.items():
        try:
            way()
        except OSError:
            continue
        done.append(name)
    return done
"""

DECODER = """
from readers.sandbox import image_decoding
def inspect_image(image, **limits):
    raise image_decoding.ImageRefused(json.dumps([os.getuid() == 0, tries()]))
image_decoding.inspect_image = inspect_image
from readers.sandbox.program import run
run(sys.argv[1])
"""

PARQUET = """
from readers.refusals import UploadRefused
from readers.sandbox.program import run
from readers.tables import parquet_child
def opened(*_):
    raise UploadRefused("done", json.dumps(tries()))
parquet_child._opened = opened
run(sys.argv[1])
"""

PTRACE = {"x86_64": 101, "aarch64": 117}


@pytest.fixture
def formats() -> dict[str, bytes]:
    """An image in each format, the one of 16 bits a pixel too."""
    images = {}
    for name in FORMATS:
        out = io.BytesIO()
        Image.new("I;16" if name == "TIFF" else "RGB", (20, 10)).save(out, name)
        images[name] = out.getvalue()
    return images


@pytest.fixture
def tries(tmp_path: Path) -> Iterator[str]:
    """A piece of program with a function that returns which forbidden things it could do."""
    blob = tmp_path / "blob"
    blob.write_bytes(b"secret")
    for path in (tmp_path, blob):  # so that only confinement stands in the way
        path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = PTRACE[os.uname().machine]
        yield TRIES.format(port=server.getsockname()[1], blob=str(blob), ptrace=number)


def test_an_image_decoder_reaches_nothing_but_its_images(tries: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_PROGRAM", tries + DECODER)
    with contextlib.closing(Decoder(DecoderLimits(1, SIZES))) as one:
        (answer,) = one.inspect([b"x"])
    assert isinstance(answer, Refused)
    assert isinstance(answer, Refused)
    assert json.loads(answer.reason) == [False, []]


def test_landlock_alone_keeps_files_processes_and_tcp_away(tries: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without = "from readers.sandbox import confinement as c; c._MACHINES = {}; c._leave_root = lambda: None\n"
    monkeypatch.setattr(child, "_PROGRAM", tries + without + DECODER)
    with contextlib.closing(Decoder(DecoderLimits(1, SIZES))) as one:
        (answer,) = one.inspect([b"x"])
    assert isinstance(answer, Refused)
    assert set(json.loads(answer.reason)[1]) <= {"udp", "unix", "root"}


def test_a_parquet_reader_reaches_nothing_but_its_file(
    tries: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(child, "_PROGRAM", tries + PARQUET)
    with (tmp_path / "blob").open("rb") as file, pytest.raises(UploadRefused) as refused:
        parquet_file("x", lambda: Extent(file, 0, 1), Limits())
    assert (refused.value.code, json.loads(refused.value.message)) == ("done", [])


def test_without_confinement_all_of_it_can_be_done(tries: str) -> None:
    """So that what the tests above find refused is refused by confinement, not by this machine."""
    program = tries + "print(json.dumps(tries()))"
    program = program.replace('os.execv("/bin/sh", ["sh", "-c", "exit 0"])', 'subprocess.run(["/bin/sh", "-c", ":"])')
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    possible = set(json.loads(found.stdout))
    assert possible >= {"environment", "blob", "blobs", "write", "users", "tcp", "udp", "unix", "program", "end"}


def test_what_the_kernel_lacks_is_said_once_and_the_images_are_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    confinement.warn_of_missing.cache_clear()
    lacking = "from readers.sandbox import confinement; confinement._CREATE_RULESET = 99999; " + child._PROGRAM
    monkeypatch.setattr(child, "_PROGRAM", lacking)
    with caplog.at_level(logging.WARNING, "readers.sandbox.confinement"):
        for _ in range(2):
            with contextlib.closing(Decoder(DecoderLimits(10_000, SIZES))) as one:
                (answer,) = one.inspect([picture(0)])
                assert isinstance(answer, Inspected)
                assert answer.width == 32
    assert [record.getMessage() for record in caplog.records] == [
        "decoders of uploads run without Landlock, which this system does not grant"
    ]


def test_every_format_is_read_by_a_confined_decoder(formats: dict[str, bytes]) -> None:
    with contextlib.closing(Decoder(DecoderLimits(10_000, SIZES))) as one:
        found = one.inspect(list(formats.values()))
    assert [image.format for image in found if isinstance(image, Inspected)] == list(formats)


@pytest.mark.parametrize("module", ["worker.app", "worker.sweeper", "service.app"])
def test_a_process_with_secrets_is_closed_to_others_of_its_user(module: str, settings: Settings) -> None:
    """`/proc/PID/environ` of what cannot be dumped belongs to root, whoever runs it."""
    program = f"import ctypes, {module}; from store.settings import get_settings; get_settings()"
    program += "; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    environment = confined_environment() | {"DATABASE_URL": settings.database_url}
    environment |= {"REDIS_URL": settings.redis_url, "ECIF_HOME": str(settings.ecif_home)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "0"
