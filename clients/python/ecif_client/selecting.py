"""Dropping samples of a webdataset by the verdicts of a job, while it is read: nothing is rewritten."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from ecif_client.errors import UsageError

Sample = TypeVar("Sample", bound=Mapping[str, Any])
Keep = Literal["clean", "flagged"]


class Selection:
    """Which samples stay, by shard and key. As a stage of a pipeline it takes samples and gives those that stay; as
    `keeps` it is a predicate on one. It holds only the keys that it needs, and can be pickled.

    A sample is known by `__url__` and `__key__`, as webdataset and open_clip give them: stand before anything that
    drops them, and before `decode`, so that what is dropped is not decoded. Where a sample holds several pairs (its
    image has several captions), one that is to be dropped drops it.
    """

    def __init__(self, verdicts: Iterable[Mapping[str, Any]], *, keep: Keep = "clean", unknown: str = "keep") -> None:
        if keep not in ("clean", "flagged") or unknown not in ("keep", "drop"):
            raise UsageError("keep is 'clean' or 'flagged', and unknown 'keep' or 'drop'")
        self._unknown = unknown == "keep"
        self._dropped: dict[str, set[str]] = {}
        self._kept: dict[str, set[str]] = {}
        wanted = "keep" if keep == "clean" else "drop"
        for line in verdicts:
            stays = line["verdict"] == wanted
            keys = (self._kept if stays else self._dropped).setdefault(line["shard"] or "", set())
            if not stays or not self._unknown:  # else what is not dropped stays, whatever its key
                keys.add(line["key"])
        self._named: dict[str, list[str]] = {}
        for shard in {*self._kept, *self._dropped}:
            self._named.setdefault(shard.rpartition("/")[2], []).append(shard)
        self._of_url: dict[str, str | None] = {}

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Those that stay, as they came."""
        return (sample for sample in samples if self.keeps(sample))

    def keeps(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample stays.

        Raises:
            UsageError: it has no `__key__`, or its shard cannot be told from another of that name.
        """
        if "__key__" not in sample:
            raise UsageError("a sample has no __key__: select before the samples are made into tuples")
        url, key = str(sample.get("__url__", "")), sample["__key__"]
        if url not in self._of_url:
            self._of_url[url] = self._shard_of(url)
        shard = self._of_url[url]
        if shard is None:
            return self._unknown
        if key in self._dropped.get(shard, ()):
            return False
        return self._unknown or key in self._kept.get(shard, ())

    def _shard_of(self, url: str) -> str | None:
        """The judged shard of this file name; of several the one that agrees in most folders, a whole name first. A
        nameless one is any."""
        for address in _addresses(url):
            near = self._named.get(address.rpartition("/")[2], []) if address.rpartition("/")[2] else []
            agreeing = {shard: _agreement(shard, address) for shard in near}
            best = [shard for shard in near if agreeing[shard] == max(agreeing.values())]
            if len(best) > 1:
                raise UsageError(f"{url} may be any of {', '.join(sorted(best))}: name them as in the upload")
            if best:
                return best[0]
        return "" if "" in self._named else None


def _agreement(shard: str, address: str) -> tuple[int, bool]:
    """How many parts are equal from the end, and whether these are the whole name of the shard."""
    ours, theirs = shard.split("/")[::-1], address.split("/")[::-1]
    pairs = zip(ours, theirs, strict=False)
    equal = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs)))
    return equal, equal == len(ours)


def _addresses(url: str) -> Iterator[str]:
    """What may be the address of a tar: the whole, the words of `pipe:aws s3 cp s3://bucket/a.tar -`, and each without
    its query."""
    for word in (url, *(url.split() if " " in url else ())):
        word = word.strip("'\"")
        yield word.partition("#")[0].partition("?")[0]
        yield word


def select(
    verdicts: str | Path | Iterable[Mapping[str, Any]], *, keep: Keep = "clean", unknown: str = "keep"
) -> Selection:
    """What drops the samples that a job flagged, by its verdicts: rows, or what `ecif export --format verdicts` wrote.

    With webdataset: `wds.WebDataset(urls).compose(select("verdicts.jsonl"))`. In a pipeline such as open_clip's: a
    stage after `tarfile_to_samples`. `keep="flagged"` leaves the others out instead; `unknown` says what becomes of
    samples that no line names: held out for validation, turned away, or of another dataset.

    Raises:
        UsageError: the file is not there, or a line of it is no verdict.
    """
    if not isinstance(verdicts, str | Path):
        return Selection(verdicts, keep=keep, unknown=unknown)
    return Selection(_lines(Path(verdicts)), keep=keep, unknown=unknown)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                verdict = {name: row[name] for name in ("shard", "key", "verdict")}
            except (ValueError, TypeError, KeyError):
                raise UsageError(
                    f"{path}, line {number}: no verdict; `ecif export --format verdicts` writes them"
                ) from None
            yield verdict
