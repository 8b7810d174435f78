"""Sets of numbered archives: their order, and which numbers are missing."""

import re
from collections import defaultdict
from collections.abc import Iterable

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d+)(?P<of>-of-(?P<count>\d+))?(?P<tail>\D*(?:bz2)?)", re.DOTALL)
_NUMBER = re.compile(r"([0-9]+)")
_MOST_NAMED = 20
_MOST_MISSING = 100_000


def by_number(name: str) -> tuple[list[str | int], str]:
    """Sorts names as they are numbered: `9.tar` before `10.tar`."""
    parts = _NUMBER.split(name)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], name


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """The shards that a set of names leaves out, by name: `00001.tar` between `00000.tar` and `00002.tar`.

    A set starts at 0, or at 1, and ends at its highest number or at what `-of-00005` says. At most twenty are named;
    the last then says how many more.
    """
    sets: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in names:
        if found := _NUMBERED.fullmatch(name):
            sets[found["head"], found["of"] or "", found["tail"]].add(found["number"])
    lost: list[str] = []
    for (head, of, tail), digits in sorted(sets.items()):
        width, numbers = min(map(len, digits)), {int(digit) for digit in digits}
        if len(numbers) < 2 and not of:
            continue  # a single number is no set
        end = int(of.removeprefix("-of-")) if of else max(numbers) + 1
        first = 0 if of or 0 in numbers else min(min(numbers), 1)
        if end - len(numbers) > _MOST_MISSING:
            continue  # years, hashes, identifiers: no numbering of shards
        lost += [f"{head}{n:0{width}d}{of}{tail}" for n in range(first, end) if n not in numbers]
    return tuple(lost) if len(lost) <= _MOST_NAMED else (*lost[:_MOST_NAMED], f"and {len(lost) - _MOST_NAMED} more")
