"""What goes over the pipe from the process that reads parquet: two lengths, JSON, bytes."""

import struct
from typing import IO

FRAME = struct.Struct(">2Q")


def write_frame(out: IO[bytes], text: str, blob: bytes = b"") -> None:
    raw = text.encode()
    out.write(FRAME.pack(len(raw), len(blob)))
    out.write(raw)
    out.write(blob)
    out.flush()
