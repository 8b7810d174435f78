"""What an index leaves for those who read: the pairs of an upload without their images, which are read later."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from typing import IO

from readers.archives.member_bytes import Spent, StoredMember
from readers.limits import Limits
from readers.pair_fields import shown
from readers.pairs import ImagePair, Item, RejectedPair, Sample
from readers.refusals import PairRefused, Rejection, damage_refused


def line_of(item: ImagePair | RejectedPair) -> bytes:
    """A listed item as a line of JSON."""
    if isinstance(item, RejectedPair):
        fields: list[object] = [item.key, item.caption, item.reason, item.rejection]
    else:
        assert item.member is not None  # noqa: S101  it was listed, not read
        fields = [item.key, item.caption, item.extra, item.further, item.where, astuple(item.member)]
        fields += [item.sample] if item.sample is not None else []
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def read_listed(lines: Iterable[bytes], file: IO[bytes], limits: Limits) -> Iterator[Item]:
    """The items of a listing with their images, out of `file`, the upload.

    Pairs of one image share its bytes. Of a row whose image is damaged one rejected pair is left.
    """
    spent = Spent(limits)
    member: StoredMember | None = None
    content: bytes | PairRefused = b""
    refused_row: str | None = None
    with damage_refused():
        for line in lines:
            item = _item(json.loads(line))
            if isinstance(item, RejectedPair) or item.member is None:
                yield item
                continue
            if item.member != member:
                member, refused_row = item.member, None
                try:
                    content = member.read(file, limits, spent)
                except PairRefused as error:
                    content = error
            if isinstance(content, bytes):
                yield replace(item, image=content)
            elif item.where != refused_row:
                refused_row = item.where
                reason = f"{item.where}: {content}"
                yield RejectedPair(shown(item.key), shown(item.caption), reason, content.rejection)


def _item(fields: list[object]) -> ImagePair | RejectedPair:
    if len(fields) == 4:
        key, caption, reason, rejection = fields
        return RejectedPair(key, caption, reason, Rejection(rejection))  # type: ignore[arg-type]
    key, caption, extra, further, where, member, *more = fields
    sample = Sample(*more[0]) if more else None  # type: ignore[misc]
    return ImagePair(key, caption, b"", extra, further, where, StoredMember(*member), sample)  # type: ignore[arg-type,misc]
