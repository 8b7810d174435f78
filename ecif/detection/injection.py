"""Mismatches made of the user's own pairs, to learn from which columns tell (`docs/design.md`, section 7).

Two pairs exchange their captions, so that every image and every caption is still used as often as it was, and what is
injected looks as real mismatches do: some with any caption, some with one that is near, some with one that differs by a
word. Both pairs are then wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.detection.groups import Groups

NEAREST: Final = 10
"""From so many nearest captions a near one is drawn."""

_TRIES: Final = 8  # at partners for one pair, before it is left alone
_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class Exchange:
    """Who has whose caption. caption_of: (n,) int64, the place whose caption each pair has now; its own for most.
    kinds: how many pairs exchanged with any, a near, a one-word partner."""

    caption_of: Tensor
    kinds: dict[str, int]

    @property
    def injected(self) -> Tensor:
        """(n,) bool, the pairs that are wrong now."""
        return self.caption_of != torch.arange(len(self.caption_of))


def exchange(
    texts: Tensor, captions: Sequence[str] | None, groups: Groups, share: float, seed: int, draw: int, spared: Tensor
) -> Exchange:
    """Let a share of n pairs exchange captions, a third of them each way.

    Args:
        texts: (n, E), unit rows.
        captions: n texts, or None.
        groups: of their captions.
        share: of the pairs that are to be wrong afterwards; fewer where partners are not to be had.
        draw: another one with the same seed exchanges others.
        spared: (n,) bool, the pairs that keep theirs.
    """
    n, drawn = len(texts), generator(seed, -100 - draw)
    caption_of, free = torch.arange(n), ~spared
    kinds = {"any": 0, "near": 0, "one_word": 0}
    order = torch.randperm(n, generator=drawn)
    wanted = min(n, int(share * n))
    # More than will be exchanged, since some find no partner; those looked at are a chance sample either way.
    candidates = order[: min(n, 3 * wanted)]
    near = _near(texts, groups, candidates)
    one_word = _one_word_apart(captions, groups, candidates) if captions is not None else {}
    members = groups.members()
    ways: tuple[tuple[str, Callable[[int], Sequence[int]]], ...] = (
        ("any", lambda place: ()),
        ("near", lambda place: near[place]),
        ("one_word", lambda place: one_word.get(groups.number(place), ())),
    )
    done = 0
    for turn, place in enumerate(candidates.tolist()):
        if done >= wanted:
            break
        if not free[place]:
            continue
        name, partners = ways[turn % len(ways)]
        others = partners(place)
        if not others and name == "one_word":  # no caption is that like it
            name, others = "near", near[place]
        for pick in torch.rand(_TRIES, 2, generator=drawn).tolist():
            if others:
                same = members[others[int(pick[0] * len(others))]]
                partner = same[int(pick[1] * len(same))]
            else:
                partner = int(pick[0] * n)
            if free[partner] and groups.number(partner) != groups.number(place):
                caption_of[place], caption_of[partner] = partner, place
                free[place] = free[partner] = False
                kinds[name] += 2
                done += 2
                break
    return Exchange(caption_of, {name: count for name, count in kinds.items() if count})


def _near(texts: Tensor, groups: Groups, places: Tensor) -> dict[int, list[int]]:
    """Of each place the numbers of the distinct captions nearest to its own."""
    distinct, nearest_of = texts[groups.first], dict[int, list[int]]()
    for some in torch.split(places, _AT_ONCE):
        cosine = texts[some] @ distinct.mT
        cosine[torch.arange(len(some)), groups.of[some]] = -torch.inf
        nearest = cosine.topk(min(NEAREST, max(1, len(distinct) - 1)), 1).indices.tolist()
        nearest_of |= dict(zip(some.tolist(), nearest, strict=True))
    return nearest_of


def _one_word_apart(captions: Sequence[str], groups: Groups, places: Tensor) -> dict[int, list[int]]:
    """Of the captions of these places, by number, the distinct captions that differ in one word of as many."""
    wanted = set(groups.of[places].tolist())
    gaps: dict[tuple[int, str], list[int]] = defaultdict(list)
    first = groups.first.tolist()
    for number in wanted:
        for key in _gaps(captions[first[number]]):
            gaps[key].append(number)
    others: dict[int, list[int]] = defaultdict(list)
    for number, place in enumerate(first):
        for key in _gaps(captions[place]):
            for mine in gaps.get(key, ()):
                if mine != number:
                    others[mine].append(number)
    return others


def _gaps(caption: str) -> list[tuple[int, str]]:
    words = caption.lower().split()
    return [(gap, " ".join(words[:gap] + words[gap + 1 :])) for gap in range(len(words))] if len(words) > 1 else []
