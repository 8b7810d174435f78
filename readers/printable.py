"""Text that can be stored: PostgreSQL refuses NUL, and lone surrogates have no UTF-8."""

import re

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def flaw(text: str) -> str | None:
    """Why this text cannot be stored, or None when it can.

    Bytes that were not UTF-8 arrive here as U+DC80–U+DCFF (`surrogateescape`), so that the row they are in can be
    named instead of the whole file being refused.
    """
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if 0xDC80 <= ord(text[error.start]) <= 0xDCFF:
            return "bytes that are not UTF-8"
        return "half of a surrogate pair"
    return None


def printable(text: str, most: int = 500) -> str:
    """`text` fit to be stored and shown: control characters and surrogates become U+FFFD, and the end is cut."""
    return _UNFIT.sub("\ufffd", text if len(text) <= most else text[: most - 1] + "…")
