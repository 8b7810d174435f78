"""From one row's key, captions and image to pairs: one for each caption, or the reason why there is none."""

from collections.abc import Callable, Collection, Iterator, Mapping

from readers.archives.stored_member import StoredMember
from readers.limits import Limits
from readers.pair_fields import caption_from, extra_from, key_from, shown
from readers.pairs import ImagePair, RejectedPair
from readers.refusals import PairRefused


def image_pairs(
    *,
    where: str,
    key: object,
    caption: object,
    values: Mapping[str, object],
    taken: Collection[str | None],
    image: Callable[[], bytes | StoredMember],
    limits: Limits,
) -> Iterator[ImagePair | RejectedPair]:
    """The pairs of one row, which `where` names. `caption` may be a list: each is a pair with the same image.

    `values` are the row's columns; those not `taken` become `extra`. `image` may raise `PairRefused`.
    """
    captions = caption if isinstance(caption, list) and caption else [None if caption == [] else caption]
    several = len(captions) > 1
    good: list[str] = []
    try:
        checked_key, extra = key_from(key, limits), extra_from(values, taken, limits)
        for number, text in enumerate(captions, start=1):
            try:
                good.append(caption_from(text, limits))
            except PairRefused as error:
                reason = f"{where}: caption {number}: {error}" if several else f"{where}: {error}"
                yield RejectedPair(shown(key), shown(text), reason, error.rejection)
        content = image() if good else b""
    except PairRefused as error:
        yield RejectedPair(shown(key), shown(caption), f"{where}: {error}", error.rejection)
        return
    read, member = (content, None) if isinstance(content, bytes) else (b"", content)
    for number, text in enumerate(good):
        yield ImagePair(checked_key, text, read, extra, number > 0, where, member)
