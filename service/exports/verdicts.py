"""Verdicts alone, for loaders: which sample of which shard stays, and no image."""

import json
from collections.abc import Iterator

from service.exports.source import Source
from store.errors import ConflictError


def verdict_chunks(source: Source) -> Iterator[str]:
    """One object a line: shard, key, verdict (keep or drop), suspicion.

    Raises:
        ConflictError: the job judges no pairs.
    """
    source.of_a_dataset("a list of verdicts")
    if not source.judges:
        raise ConflictError(
            "nothing_flagged",
            f"a {source.task} flags no pairs, so there are no verdicts: take those of a misalignment job on the same "
            "dataset",
        )
    return _lines(source)


def _lines(source: Source) -> Iterator[str]:
    for piece in source.pieces():
        yield "".join(
            json.dumps(
                {
                    "shard": (source.filename or "") if row.shard == "" else row.shard,
                    "key": row.sample if row.sample is not None else row.key,
                    "verdict": "drop" if row.flagged else "keep",
                    "suspicion": row.suspicion,
                },
                ensure_ascii=False,
                allow_nan=False,
            )
            + "\n"
            for row in piece
        )
