"""What `ECIF_SOURCES` lists: a host or a bucket, and perhaps a folder of it. Compared by parts, never as text.

`https://data.example.com` admits neither `https://data.example.com.evil.net` nor another port of the host, and
`s3://team/sets` neither `s3://team-secrets` nor `s3://team/sets-of-others`.
"""

from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"https": 443, "http": 80}
_SCHEMES = (*_PORTS, "s3", "gs")
_MOST_DECODINGS = 5


@dataclass(frozen=True)
class Source:
    """Where datasets may be fetched from: everything at `place`, in the folder whose path has these `segments`."""

    place: tuple[str, str, int | None]
    segments: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Self:
        """Read one entry.

        Raises:
            ValueError: it is no address of a host or a bucket, or holds more than a path.
        """
        parts = urlsplit(text)
        segments = _segments(parts.path.rstrip("/"))
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(f"{text!r} is no https://host, s3://bucket or gs://bucket, with a folder or without")
        if parts.query or parts.fragment or "@" in parts.netloc or leads_elsewhere(parts.path):
            raise ValueError(f"{text!r} holds more than a host or a bucket, and a folder")
        return cls(_place(parts), segments)

    def admits(self, parts: SplitResult) -> bool:
        """Whether an address is one of this source."""
        return _place(parts) == self.place and _segments(parts.path)[: len(self.segments)] == self.segments


def leads_elsewhere(path: str) -> bool:
    """Whether any reading of a path finds `.` or `..` in it: percent-encoded once or more, with backslashes, or with
    parameters behind, as some servers take them; or it is encoded more often than anybody needs."""
    decoded = path
    for _ in range(_MOST_DECODINGS):
        segments = decoded.replace("\\", "/").split("/")
        if any(segment.partition(";")[0] in (".", "..") for segment in segments):
            return True
        again = unquote(decoded)
        if again == decoded:
            return False
        decoded = again
    return True


def _place(parts: SplitResult) -> tuple[str, str, int | None]:
    if parts.scheme not in _PORTS:
        return parts.scheme, parts.netloc, None
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]


def _segments(path: str) -> tuple[str, ...]:
    """Decoded one by one: a slash that is written %2F separates none."""
    return tuple(unquote(segment) for segment in path.split("/")[1:])
