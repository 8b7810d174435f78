"""Pairs of an upload, checked by several processes and given out in the order in which they came."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from readers.limits import DecoderLimits
from readers.pairs import EmbeddingBlock, ImagePair, Item, RejectedPair
from readers.refusals import Rejection, UploadRefused
from readers.sandbox.decoder import Decoder, Refused
from readers.sandbox.image_decoding import Inspected


@dataclass(frozen=True, slots=True)
class CheckedPair:
    """A pair whose image decodes."""

    pair: ImagePair
    image: Inspected


Checked = CheckedPair | RejectedPair | EmbeddingBlock


def inspected(items: Iterable[Item], limits: DecoderLimits) -> Generator[Checked, None, None]:
    """Each pair with what its image is, or turned away with the reason; what has no image goes through as it is.

    Batches are read ahead, at most one more than there are processes. Close it to end the processes early.

    Raises:
        UploadRefused: too many of the images break the decoder.
        DecoderNotStartedError, OSError: this machine's fault.
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
    found = iter(answers.result())
    image: bytes | None = None
    for item in batch:
        if not isinstance(item, ImagePair):
            yield item
            continue
        fresh = item.image is not image
        if fresh:
            image, answer = item.image, next(found)
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
