"""Several addresses in one, as webdataset writes them: `{00000..00099}.tar`, `{train,val}.tar`.

What braces mean is braceexpand's to say, as it is in webdataset, but for the backslash, which is a letter here. How
many addresses there will be is counted first: braceexpand holds every range that is not the last.
"""

from braceexpand import alphabet, braceexpand, char_range_re, int_range_re  # type: ignore[attr-defined]

from store.errors import InvalidError

MOST_FILES = 10_000
_DEEPEST = 10


def expanded(uri: str) -> list[str]:
    """The addresses that `uri` stands for, in its order; itself where it has no braces.

    Raises:
        InvalidError: its braces do not match, or stand for more than `MOST_FILES`.
    """
    if (count := _count(uri)) > MOST_FILES:
        shown = f"{count:,}" if count < 10**18 else "far more"
        raise InvalidError("too_many_files", f"the URI names {shown} files; {MOST_FILES:,} is the most", "uri")
    return list(braceexpand(uri, escape=False))


def _count(uri: str) -> int:
    """How many addresses there will be."""
    inside: list[tuple[int, int, int]] = []
    alternatives, product, begin = 0, 1, 0
    for at, letter in enumerate(uri):
        if letter == "{":
            inside.append((alternatives, product, begin))
            alternatives, product, begin = 0, 1, at + 1
            if len(inside) > _DEEPEST:
                raise InvalidError("invalid_uri", f"its braces are more than {_DEEPEST} deep", "uri")
        elif letter == "," and inside:
            alternatives, product = alternatives + product, 1
        elif letter == "}":
            if not inside:
                raise _unbalanced()
            count = _range(uri[begin:at]) or alternatives + product
            alternatives, product, begin = inside.pop()
            product *= count
    if inside:
        raise _unbalanced()
    return product


def _range(inner: str) -> int | None:
    """How many there are in `00..99`, `a..f` or `0..90..10`."""
    if found := int_range_re.match(inner):
        first, last = int(found[1]), int(found[2])
    elif found := char_range_re.match(inner):
        first, last = alphabet.index(found[1]), alphabet.index(found[2])
    else:
        return None
    return abs(last - first) // (int(found[3] or 1) or 1) + 1


def _unbalanced() -> InvalidError:
    return InvalidError(
        "invalid_uri", "its braces do not match; one that is part of a name is written %7B or %7D", "uri"
    )
