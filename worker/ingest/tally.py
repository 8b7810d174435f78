"""What ingest counts: rejections by reason, captions, labels."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from readers.refusals import Rejection
from store.states import DuplicateKind
from store.summaries import Duplicates, PairCounts, TallyCounts
from worker.ingest.duplicates import Equal

_MOST_LABELS = 1000


@dataclass
class Tally:
    """Counts over the pairs of one dataset."""

    rejected: Counter[str] = field(default_factory=Counter)
    captions: int = 0
    characters: int = 0
    longest: int = 0
    further_captions: int = 0
    _labels: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> TallyCounts:
        """All counts, as `from_json` reads them."""
        counts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        return cast("TallyCounts", counts)

    @classmethod
    def from_json(cls, counts: TallyCounts) -> "Tally":
        fields: dict[str, Any] = {
            **counts,
            "rejected": Counter(counts["rejected"]),
            "_labels": Counter(counts["_labels"]),
        }
        return cls(**fields)

    def add(self, others: "Tally") -> None:
        """Count what another shard has counted."""
        self.rejected += others.rejected
        self.captions += others.captions
        self.characters += others.characters
        self.longest = max(self.longest, others.longest)
        self.further_captions += others.further_captions
        self._labels += others._labels

    def reject(self, rejection: Rejection) -> None:
        self.rejected[rejection.value] += 1

    def accept(self, caption: str | None, extra: Mapping[str, Any], *, further: bool = False) -> None:
        """Count a usable pair."""
        if caption is not None:
            self.captions += 1
            self.characters += len(caption)
            self.longest = max(self.longest, len(caption))
        self.further_captions += further
        label = extra.get("label")
        if isinstance(label, str | int | bool) and len(self._labels) <= _MOST_LABELS:
            self._labels[str(label)[:200]] += 1

    @property
    def labels(self) -> dict[str, int] | None:
        """Pairs by label, the commonest first; `None` where there are none, or more than a thousand."""
        if not self._labels or len(self._labels) > _MOST_LABELS:
            return None
        return dict(sorted(self._labels.items(), key=lambda item: (-item[1], item[0])))

    def summary(self, equal: Mapping[DuplicateKind, Equal], pairs: int) -> PairCounts:
        """The part of a dataset's summary that is about its pairs."""
        duplicates: dict[str, Duplicates] = {
            kind.value: {"groups": e.groups, "pairs": len(e.position)} for kind, e in equal.items()
        }
        same = equal.get(DuplicateKind.CAPTION)
        distinct = pairs - len(same.position) + same.groups if same is not None else 0
        return {
            "rejected": dict(sorted(self.rejected.items())),
            "duplicates": duplicates,
            "captions": {
                "count": self.captions,
                "distinct": distinct,
                "mean_characters": round(self.characters / self.captions, 1) if self.captions else None,
                "longest_characters": self.longest,
                "further": self.further_captions,
            },
            "labels": self.labels,
        }
