"""Images that break the decoder, and what becomes of their neighbours and of the worker."""

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from readers.limits import DecoderLimits
from readers.pairs import EmbeddingBlock, ImagePair, RejectedPair
from readers.refusals import UploadRefused
from readers.sandbox import child
from readers.sandbox.child import ChildNotStartedError, ChildTooSlowError
from readers.sandbox.image_checks import CheckedPair, Decoder, Refused, inspected
from readers.sandbox.image_decoding import inspect_image
from tests.readers.breaking import breaking_program
from tests.service_fixtures import picture

LIMITS = DecoderLimits(thumbnails=(64, 256), max_pixels=1_000_000, seconds=30, processes=2, batch_images=4)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(child, "_PROGRAM", breaking_program(tmp_path))


def pair(key: str, image: bytes) -> ImagePair:
    return ImagePair(key, f"caption of {key}", image, {})


def children() -> set[str]:
    """The processes that this one has started and not buried."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(listed.read_text().split()) if listed.exists() else set()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"crash", "the decoder broke down over it"),
        (b"hang", "the decoder took more than 1 s over it"),
        (b"lie", "the decoder broke down over it"),
        (b"boast", "the decoder broke down over it"),
        (b"brag", "the decoder broke down over it"),
        (b"owe", "the decoder broke down over it"),
        (b"flood", "the decoder broke down over it"),
        (b"not an image", "not an image in a known format"),
    ],
)
def test_an_image_that_breaks_the_decoder_is_turned_away_and_its_neighbours_are_kept(
    breaking: None, image: bytes, reason: str
) -> None:
    limits = DecoderLimits(thumbnails=(64, 256), max_pixels=10_000, seconds=1, processes=1)
    items = [pair("a", picture(1)), pair("b", image), pair("c", picture(2))]
    first, turned_away, last = inspected(items, limits)
    assert isinstance(turned_away, RejectedPair)
    assert (turned_away.key, turned_away.caption) == ("b", "caption of b")
    assert turned_away.reason.startswith(f"image of b: {reason}")
    assert (first, last) == tuple(CheckedPair(item, inspect_image(item.image)) for item in (items[0], items[2]))


def test_an_image_that_needs_more_memory_than_there_may_be_is_turned_away() -> None:
    large = io.BytesIO()
    Image.new("L", (9000, 9000)).save(large, "PNG")
    limits = DecoderLimits(thumbnails=(64, 256), max_pixels=100_000_000, memory_bytes=80 << 20, processes=1)
    small, turned_away = inspected([pair("a", picture(1)), pair("b", large.getvalue())], limits)
    assert isinstance(small, CheckedPair)
    assert isinstance(turned_away, RejectedPair)
    assert turned_away.reason == "image of b: too large: it does not fit into memory"


def test_a_decoder_that_breaks_once_is_not_the_images_fault(breaking: None) -> None:
    (kept,) = inspected([pair("a", b"once")], LIMITS)
    assert isinstance(kept, CheckedPair)


def test_a_decoder_that_is_killed_is_started_again() -> None:
    one = Decoder(LIMITS)
    with contextlib.closing(one):
        assert one.inspect([picture(0)]) == [inspect_image(picture(0))]
        os.kill(one._child._process.pid, signal.SIGKILL)
        assert one.inspect([picture(1), b"x"])[0] == inspect_image(picture(1))


def test_pairs_come_in_their_order_whatever_happens_to_some(breaking: None) -> None:
    images = {3: b"crash", 7: b"no image", 20: b"crash"}
    items: list[ImagePair | RejectedPair] = [pair(str(n), images.get(n, picture(n))) for n in range(30)]
    items.insert(5, RejectedPair("r", None, "rejected before"))
    found = list(inspected(items, LIMITS))
    keys = [
        item.pair.key if isinstance(item, CheckedPair) else item.key
        for item in found
        if not isinstance(item, EmbeddingBlock)
    ]
    assert keys == [item.key for item in items]
    assert [item.key for item in found if isinstance(item, RejectedPair)] == ["3", "r", "7", "20"]


def test_the_second_caption_of_an_image_does_not_decode_it_again(breaking: None) -> None:
    image = picture(0)
    items = [pair("a", image), pair("b", image), pair("c", b"crash"), pair("d", picture(1))]
    items[3:3] = [ImagePair("c", "another caption", items[2].image, {}, further=True)]
    limits = DecoderLimits(thumbnails=(64, 256), max_pixels=10_000, max_broken=1, processes=1)
    kinds = [type(item) for item in inspected(items, limits)]
    assert kinds == [CheckedPair, CheckedPair, RejectedPair, RejectedPair, CheckedPair]


def test_too_many_that_break_it_refuse_the_upload_and_leave_no_process(breaking: None) -> None:
    before = children()
    limits = DecoderLimits(thumbnails=(64, 256), max_pixels=10_000, max_broken=2, processes=1)
    with pytest.raises(UploadRefused) as refused:
        list(inspected([pair(str(n), bytes(bytearray(b"crash"))) for n in range(4)], limits))
    assert refused.value.code == "images_break_the_decoder"
    assert "more than 2 images" in refused.value.message
    assert "the last is that of 2" in refused.value.message
    assert children() == before


def test_whoever_stops_early_leaves_no_process(breaking: None) -> None:
    before = children()
    begun = inspected([pair(str(n), b"hang" if n > 4 else picture(n)) for n in range(12)], LIMITS)
    assert isinstance(next(begun), CheckedPair)
    started = time.monotonic()
    begun.close()
    assert time.monotonic() - started < LIMITS.seconds / 2
    assert children() == before


def test_pairs_are_read_ahead_a_few_batches_and_no_further() -> None:
    taken = []

    def items() -> Iterator[ImagePair]:
        for n in range(100):
            taken.append(n)
            yield pair(str(n), picture(n))

    with contextlib.closing(inspected(items(), LIMITS)) as found:
        next(found)
        assert len(taken) == 3 * LIMITS.batch_images


def test_a_program_that_does_not_start_is_no_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_PROGRAM", "raise SystemExit(1)")
    with pytest.raises(ChildNotStartedError):
        list(inspected([pair("a", picture(0))], LIMITS))


def test_a_decoder_that_nobody_waits_for_any_more_ends_by_itself(breaking: None) -> None:
    with contextlib.closing(Decoder(DecoderLimits(thumbnails=(64, 256), max_pixels=10_000, seconds=0))) as one:
        one._images.write(b"hang")
        one._images.flush()
        started = one._start()
        with pytest.raises(ChildTooSlowError):
            next(started.ask(one._request(0, [4])))
        assert started._process.wait(timeout=60) == -signal.SIGXCPU


def test_the_decoder_knows_no_secret(breaking: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    with contextlib.closing(Decoder(LIMITS)) as one:
        (told,) = one.inspect([b"environment"])
    assert isinstance(told, Refused)
    assert "PATH" in told.reason
    assert "DATABASE_URL" not in told.reason
