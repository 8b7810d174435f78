"""Images of an upload, checked by several confined processes; their pairs come out in the order in which they came.

An image that breaks such a process is turned away, and its neighbours remain.
"""

import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from queue import SimpleQueue
from threading import Lock
from typing import Any

from readers.limits import DecoderLimits
from readers.pairs import EmbeddingBlock, ImagePair, Item, RejectedPair
from readers.refusals import Rejection, UploadRefused
from readers.sandbox.child import Child, ChildBrokenError, ChildLimits, ChildNotStartedError, ChildTooSlowError
from readers.sandbox.image_decoding import Inspected

_PROGRAM = "readers.sandbox.image_child"
_LONGEST_TEXT = 1 << 16
_LARGEST_THUMBNAIL = 1 << 19  # bytes: more than 256 × 256 pixels of noise take


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that does not decode; `broke` if the decoder did not survive it."""

    reason: str
    broke: bool = False


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A pair whose image decodes."""

    pair: ImagePair
    image: Inspected


Checked = CheckedPair | RejectedPair | EmbeddingBlock


class Decoder:
    """A process that is started when it is needed and again when it broke. One thread at a time; `close` may come from
    another."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._images = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._child: Child | None = None
        self._closed = False
        self._lock = Lock()  # so that none is started that nobody ends

    def inspect(self, images: Sequence[bytes]) -> list[Inspected | Refused]:
        """What each image is. One that breaks the process twice is refused; a single time may be the machine's fault.

        Raises:
            ChildNotStartedError: there is no process to be had, or no decoder any more.
            OSError: the images cannot be put down for it.
        """
        self._images.seek(0)
        self._images.writelines(images)
        self._images.flush()
        lengths = [len(image) for image in images]
        results: list[Inspected | Refused] = []
        broken_at = -1
        while len(results) < len(images):
            child = self._child or self._start()
            try:
                self._continue(child, lengths, results)
            except ChildBrokenError as error:
                self._end()
                if broken_at == len(results):
                    results.append(Refused(self._reason(error), broke=True))
                else:
                    broken_at = len(results)
        return results

    def close(self) -> None:
        """End the process; whoever waits for it finds it broken."""
        with self._lock:
            self._closed = True
            self._end()
        self._images.close()

    def _start(self) -> Child:
        limits = self._limits
        answer_bytes = _LONGEST_TEXT + len(limits.thumbnails) * _LARGEST_THUMBNAIL
        with self._lock:
            if self._closed:
                raise ChildNotStartedError("the decoder is closed")
            allowed = ChildLimits(limits.memory_bytes, limits.seconds, answer_bytes)
            child = self._child = Child(_PROGRAM, allowed, self._images.fileno())
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _continue(self, child: Child, lengths: list[int], results: list[Inspected | Refused]) -> None:
        """Have the images inspected that have no result yet."""
        for about, content in child.ask(self._request(len(results), lengths)):
            if len(results) == len(lengths):
                raise ChildBrokenError("it says more than was requested")
            results.append(self._result(about, content))
        if len(results) < len(lengths):
            raise ChildBrokenError("it says less than was requested")

    def _request(self, first: int, lengths: list[int]) -> dict[str, object]:
        what = {"max_pixels": self._limits.max_pixels, "thumbnails": self._limits.thumbnails}
        return {"file": self._images.fileno(), "first": first, "lengths": lengths, **what}

    def _result(self, about: Any, content: bytes) -> Inspected | Refused:
        """What the process says of one image, as far as it makes sense."""
        if isinstance(about, str):
            return Refused(about)
        try:
            width, height, image_format, pixels, lengths = about
            thumbnails = self._thumbnails(content, lengths)
            return Inspected(width, height, image_format, bytes.fromhex(pixels), thumbnails)
        except (ValueError, TypeError) as error:
            raise ChildBrokenError("it says what makes no sense") from error

    def _thumbnails(self, content: bytes, lengths: list[int]) -> tuple[bytes, ...]:
        if len(lengths) != len(self._limits.thumbnails) or sum(lengths) != len(content) or min(lengths, default=0) < 0:
            raise ValueError("these are other thumbnails than were requested")
        ends = accumulate(lengths)
        return tuple(content[end - length : end] for end, length in zip(ends, lengths, strict=True))

    def _reason(self, error: ChildBrokenError) -> str:
        if isinstance(error, ChildTooSlowError):
            return f"the decoder took more than {self._limits.seconds} s over it"
        return "the decoder broke down over it"


def inspected(items: Iterable[Item], limits: DecoderLimits) -> Generator[Checked, None, None]:
    """Each pair with what its image is, or turned away with the reason; what has no image goes through as it is.

    Batches are read ahead, at most one more than there are processes. Close it to end the processes early.

    Raises:
        UploadRefused: too many of the images break the decoder.
        ChildNotStartedError, OSError: this machine's fault.
    """
    count = max(1, min(limits.processes, _cores()))
    decoders = [Decoder(limits) for _ in range(count)]
    idle: SimpleQueue[Decoder] = SimpleQueue()
    for decoder in decoders:
        idle.put(decoder)
    threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
    waiting: deque[tuple[Sequence[Item], Future[list[Inspected | Refused]]]] = deque()
    broken = 0
    try:
        for batch in _batches(items, limits):
            waiting.append((batch, threads.submit(_inspect, idle, batch)))
            while len(waiting) > (count if _images(batch) else 0):
                broken = yield from _joined(*waiting.popleft(), broken, limits)
        while waiting:
            broken = yield from _joined(*waiting.popleft(), broken, limits)
    finally:
        for decoder in decoders:
            decoder.close()
        threads.shutdown(cancel_futures=True)


def _batches(items: Iterable[Item], limits: DecoderLimits) -> Iterator[list[Item]]:
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += len(item.image) if isinstance(item, ImagePair) else 0
        if len(batch) >= limits.batch_images or held >= limits.batch_bytes or isinstance(item, EmbeddingBlock):
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _inspect(idle: "SimpleQueue[Decoder]", batch: Sequence[Item]) -> list[Inspected | Refused]:
    images = _images(batch)
    if not images:
        return []
    decoder = idle.get()
    try:
        return decoder.inspect(images)
    finally:
        idle.put(decoder)


def _images(batch: Sequence[Item]) -> list[bytes]:
    """The images of a batch. The second caption of an image does not decode it again: neighbours share its bytes."""
    pairs = [item for item in batch if isinstance(item, ImagePair)]
    return [item.image for at, item in enumerate(pairs) if at == 0 or item.image is not pairs[at - 1].image]


def _joined(
    batch: Sequence[Item], answers: "Future[list[Inspected | Refused]]", broken: int, limits: DecoderLimits
) -> Generator[Checked, None, int]:
    """Give a batch out; return how many images have broken a decoder by then."""
    results = iter(answers.result())
    image: bytes | None = None
    for item in batch:
        if not isinstance(item, ImagePair):
            yield item
            continue
        fresh = item.image is not image
        if fresh:
            image, answer = item.image, next(results)
        match answer:
            case Inspected():
                yield CheckedPair(item, answer)
            case Refused():
                reason = f"image of {item.key}: {answer.reason}"
                yield RejectedPair(item.key, item.caption, reason, Rejection.UNREADABLE_IMAGE)
                broken += fresh and answer.broke
                if broken > limits.max_broken:
                    raise UploadRefused(
                        "images_break_the_decoder",
                        f"more than {limits.max_broken} images break the decoder or hold it up for "
                        f"{limits.seconds} s; the last is that of {item.key}",
                    )
    return broken


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
