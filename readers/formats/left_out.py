"""What an upload holds beside what is read of it: a mixture of formats is read as one of them, and says so."""

import re
from collections import Counter
from collections.abc import Collection

from readers.archives.archive import Archive
from readers.archives.members import suffix
from readers.formats.contents import Contents
from readers.formats.detection import Format, captions_beside
from readers.pairs import Kind

_IMG2DATASET_TABLE = re.compile(r"(.*/)?\d+\.parquet")


def left_out(archive: Archive, contents: Contents, found: Format, used: Collection[int]) -> dict[str, int]:
    """Files of a data set's own kinds that are not read, counted by kind. `used` are the positions that are."""
    if found is Format.CROISSANT:  # says itself what belongs to it
        return {}
    telling = (
        contents.metadata,
        contents.tables,
        contents.parquet,
        contents.safetensors,
        contents.image_npy,
        contents.text_npy,
        contents.tars,
    )
    counts: Counter[str] = Counter()
    for position in (at for positions in telling for at in positions if at not in used):
        name = archive.members.name(position)
        if not (found is Format.WEBDATASET and _IMG2DATASET_TABLE.fullmatch(name)):  # the same rows once more
            counts[suffix(name)] += 1
    kind: Kind = found.kind
    if contents.images and (kind == "embeddings" or found is Format.PARQUET):
        counts["images"] = contents.images
    if found is not Format.WEBDATASET and contents.images and captions_beside(archive, contents):
        counts["captions beside images"] = contents.captions
    return dict(counts)
