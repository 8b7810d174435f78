"""What a reader has to say of an upload as a whole, once it was read to its end."""

from typing import Any

from readers.printable import printable
from readers.upload import UploadReader


def facts(reader: UploadReader) -> dict[str, Any]:
    """Its format, what there was in it beside pairs, and the warnings about that."""
    about = {
        "repeated_keys": reader.repeated_keys,
        "unreferenced_images": reader.unreferenced,
        "missing_shards": list(reader.missing_shards),
        "left_out": dict(reader.left_out),
    }
    return {"format": reader.format.value, "kind": reader.kind, "about": about, "warnings": _warnings(reader)}


def _warnings(reader: UploadReader) -> list[str]:
    found = []
    if reader.missing_shards:
        found.append(f"the set has gaps; not in the upload: {', '.join(reader.missing_shards)}")
    if reader.left_out:
        seen = ", ".join(f"{count} {kind}" for kind, count in sorted(reader.left_out.items()))
        found.append(f"a mixture of formats: it was read as {reader.format.value}, and left out were {seen}")
    if reader.repeated_keys:
        first = printable(reader.first_repeated_key or "", 100)
        found.append(f"{reader.repeated_keys} keys were given before and became KEY#2, KEY#3; the first is {first}")
    if reader.unreferenced:
        found.append(f"{reader.unreferenced} images in the archive are named by no row and were left out")
    if reader.ignored_columns:
        found.append(f"columns of bytes are not kept: {', '.join(reader.ignored_columns)}")
    return found
