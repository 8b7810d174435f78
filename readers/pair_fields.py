"""Key, caption and the other columns of one row, checked so that they can be stored, and the pairs that they make."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping

from readers.archives.member_bytes import StoredMember
from readers.limits import Limits
from readers.pairs import ImagePair, Json, RejectedPair, Sample
from readers.printable import flaw, printable
from readers.refusals import PairRefused, Rejection

_SHOWN, _SHOWN_OF_KEY = 1000, 60  # characters of a rejected row's key and caption, and of a key in a reason


def key_from(value: object, limits: Limits) -> str:
    """The key of a pair: text, or a whole number as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        raise PairRefused("no key", Rejection.UNFIT_TEXT)
    if not isinstance(value, str):
        raise PairRefused(f"the key is {_kind(value)}, not text", Rejection.UNFIT_TEXT)
    if unfit := flaw(value):
        raise PairRefused(f"the key holds {unfit}", Rejection.UNFIT_TEXT)
    if (size := len(value.encode())) > limits.max_key_bytes:
        start = printable(value, _SHOWN_OF_KEY)
        raise PairRefused(
            f"the key {start} has {size} bytes of UTF-8; {limits.max_key_bytes} is the most", Rejection.TOO_LARGE
        )
    return value


def caption_from(value: object, limits: Limits) -> str:
    """The caption of a pair, as it came."""
    if value is None:
        raise PairRefused("no caption", Rejection.NO_CAPTION)
    if not isinstance(value, str):
        raise PairRefused(f"the caption is {_kind(value)}, not text", Rejection.UNFIT_TEXT)
    if not value.strip():
        raise PairRefused("the caption is empty", Rejection.NO_CAPTION)
    if len(value) > limits.max_caption_chars:
        raise PairRefused(
            f"the caption has {len(value)} characters; {limits.max_caption_chars} is the most", Rejection.TOO_LARGE
        )
    if unfit := flaw(value):
        raise PairRefused(f"the caption holds {unfit}", Rejection.UNFIT_TEXT)
    return value


def extra_from(values: Mapping[str, object], taken: Collection[str | None], limits: Limits) -> dict[str, Json]:
    """Every column but those `taken`, as JSON that PostgreSQL keeps."""
    room = [limits.max_extra_chars]
    return {
        _storable_text(name, "a column's name", room): _storable(value, name, room, limits.max_json_depth)
        for name, value in values.items()
        if name not in taken
    }


def shown(value: object) -> str | None:
    """What a rejected row shows of a key or a caption."""
    if isinstance(value, list) and value:  # the captions of one image: the first stands for them
        value = value[0]
    return printable(value, _SHOWN) if isinstance(value, str) and value else None


def _storable(value: object, column: str, room: list[int], depth: int) -> Json:
    """`value`, which came out of JSON or CSV, when it can be stored."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _storable_text(value, f"column {printable(column, 60)}", room)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _unfit(column, f"holds {value}, which JSON has no word for")
        return value
    if depth == 0:
        raise _unfit(column, "is nested too deep")
    if isinstance(value, list | tuple):
        room[0] -= len(value)
        return [_storable(item, column, room, depth - 1) for item in value]
    if isinstance(value, Mapping):
        room[0] -= len(value)
        return {
            _storable_text(str(name), f"column {printable(column, 60)}", room): _storable(item, column, room, depth - 1)
            for name, item in value.items()
        }
    raise _unfit(column, f"holds {_kind(value)}, which cannot be kept")


def _storable_text(text: str, where: str, room: list[int]) -> str:
    room[0] -= len(text)
    if room[0] < 0:
        raise PairRefused("the other columns of the row are too long together", Rejection.TOO_LARGE)
    if unfit := flaw(text):
        raise PairRefused(f"{where} holds {unfit}", Rejection.UNFIT_TEXT)
    return text


def _unfit(column: str, why: str) -> PairRefused:
    return PairRefused(f"column {printable(column, 60)} {why}", Rejection.UNFIT_TEXT)


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def image_pairs(
    *,
    where: str,
    key: object,
    caption: object,
    values: Mapping[str, object],
    taken: Collection[str | None],
    image: Callable[[], bytes | StoredMember],
    limits: Limits,
    sample: Sample | None = None,
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
        yield ImagePair(checked_key, text, read, extra, number > 0, where, member, sample)
