"""The two ways of turning something away, and what a damaged file's own exceptions become."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import pyarrow as pa

from readers.printable import printable


class Rejection(StrEnum):
    """Why a pair was turned away, for counting; the reason beside it is for people."""

    NO_IMAGE = "no_image"  # its row names none, or one that is not there; or only a caption came
    NO_CAPTION = "no_caption"  # none, or a blank one; or only an image came
    UNREADABLE_IMAGE = "unreadable_image"  # damaged, or of a kind that is not decoded
    UNREADABLE_ROW = "unreadable_row"  # its row, line or caption file does not parse
    UNREADABLE_SHARD = "unreadable_shard"  # one of the archives of a set ends too early; not a pair, but some of them
    UNFIT_TEXT = "unfit_text"  # a key, caption or column that cannot be stored: NUL, half a surrogate, another type
    TOO_LARGE = "too_large"  # an image, key, caption or row over its limit
    UNFIT_EMBEDDING = "unfit_embedding"  # NaN, an infinity, none at all, or of another width


class UploadRefused(Exception):  # noqa: N818 (an answer about the upload, not a fault of ours)
    """The upload as a whole cannot be used. `code` is for programs, `message` for people, `param` names the field."""

    def __init__(self, code: str, message: str, param: str = "file") -> None:
        self.code = code
        self.message = printable(message, most=2000)
        self.param = param
        super().__init__(self.message)


class PairRefused(Exception):  # noqa: N818
    """One pair cannot be used; the reader that catches this knows which row it was."""

    def __init__(self, reason: str, rejection: Rejection) -> None:
        super().__init__(reason)
        self.rejection = rejection


class MemberDamaged(Exception):  # noqa: N818
    """What one member of an archive holds cannot be read; its neighbours may be sound."""


@contextmanager
def damage_refused(what: str = "archive") -> Iterator[None]:
    """Turn what the libraries raise over a damaged file into `UploadRefused`; `what` names it.

    An `OSError` with an errno is our own disk's and passes; without one it is gzip's or Arrow's word for damage.
    """
    try:
        yield
    except MemberDamaged as error:
        raise UploadRefused("unreadable_archive", f"unreadable {what}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UploadRefused("unreadable_archive", f"unreadable {what}: {error}") from error
    except (
        EOFError,
        MemoryError,
        OverflowError,
        RecursionError,
        UnicodeDecodeError,
        pa.ArrowException,
        struct.error,
        zlib.error,
    ) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UploadRefused("unreadable_archive", f"unreadable {what}: {said}") from error
