"""Pictures of two objects in a spatial relation, drawn from a seed, with captions that say all of it.

Each object has a size, a colour and a shape. Backgrounds are textured, bits of clutter lie about, light and noise vary:
what a caption says has to be looked for, but it is there to be seen.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.detection.kind import Kind, Near, Pictures

SIDE: Final = 32
_FIELD: Final = 64  # lengths below are in parts of it: half pixels
_FINE: Final = 2  # dots of the canvas to each of these parts; reduced to pixels at the end, for soft edges

# The words for each value of an attribute; the first is the one in labels.
SIZES: Final = {"small": ("small", "little"), "large": ("large", "big")}
COLOURS: Final = {
    "red": (205, 40, 40),
    "green": (45, 150, 60),
    "blue": (45, 80, 205),
    "yellow": (230, 200, 45),
    "purple": (140, 55, 165),
    "orange": (240, 130, 30),
}
SHAPES: Final = ("circle", "square", "triangle", "cross")
RELATIONS: Final = {"left": "right", "above": "below"}
_WORDINGS: Final = (
    "a {0} {left} a {1}",
    "{0} {left} {1}",
    "there is a {0} {left} a {1}",
    "a picture of a {0} {left} a {1}",
    "a {0}, {left} a {1}",
    "we see a {0} {left} one {1}",
)
_RELATED: Final = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below",),
}
_GROUPS: Final = (
    tuple(word for words in SIZES.values() for word in words),
    tuple(COLOURS),
    SHAPES,
    tuple(_RELATED),
)
_MEANING: Final = {word: size for size, words in SIZES.items() for word in words}
_WORD: Final = re.compile(rf"\b({'|'.join(word for group in _GROUPS for word in group)})\b")
_RELATIONS_SAID: Final = ("left of", "right of", "to the left of", "to the right of", "above", "below")
_PHRASE: Final = re.compile(  # a word of an attribute, or all that says a relation: no change spoils the grammar
    rf"\b({'|'.join(word for group in _GROUPS[:3] for word in group)}|(?:to the )?(?:left|right) of|above|below)\b"
)
_CODES: Final = {word: code for group in (tuple(SIZES), *_GROUPS[1:]) for code, word in enumerate(group)}

_Object = tuple[str, str, str]  # size, colour, shape


def label_of(caption: str) -> str:
    """What it says without its wording: "A right of B" is "B left of A".

    >>> label_of("there is a big red square to the right of a little blue cross")
    'small blue cross left large red square'
    """
    size, colour, shape, relation, *other = (_MEANING.get(word, word) for word in _WORD.findall(caption))
    first, second = " ".join((size, colour, shape)), " ".join(other)
    if relation in RELATIONS:
        return f"{first} {relation} {second}"
    opposite = next(one for one, other_way in RELATIONS.items() if other_way == relation)
    return f"{second} {opposite} {first}"


def _worded(label: str, draw: random.Random) -> str:
    *first, relation, size, colour, shape = label.split()
    pair = [first, [size, colour, shape]]
    if draw.random() < 0.5:
        pair.reverse()
        relation = RELATIONS[relation]
    said = [" ".join((draw.choice(SIZES[size]), colour, shape)) for size, colour, shape in pair]
    return draw.choice(_WORDINGS).format(*said, left=draw.choice(_RELATED[relation]))


def altered(caption: str, draw: random.Random) -> tuple[str, str]:
    """The caption with one attribute or the relation another of its group, and what it says then."""
    before = label_of(caption)
    while True:
        place = draw.choice(list(_PHRASE.finditer(caption)))
        group = next(group for group in (*_GROUPS[:3], _RELATIONS_SAID) if place.group() in group)
        changed = caption[: place.start()] + draw.choice(group) + caption[place.end() :]
        after = label_of(changed)
        *first, _, size, colour, shape = after.split()
        if after != before and first != [size, colour, shape]:
            return changed, after


def near(labels: Iterable[str]) -> Near:
    """Those at the fewest changes: one word, the relation (with what it turns round), two colours for each other."""
    names = sorted(set(labels))
    if not names:
        return {}
    codes = np.array([[_CODES[word] for word in name.split()] for name in names], dtype=np.int8)
    turned = codes[:, [4, 5, 6, 3, 0, 1, 2]]
    nearest = {}
    for row, name in enumerate(names):
        changes = np.minimum(_changes(codes[row], codes), 1 + _changes(codes[row], turned, relation=False))
        changes[row] = 99
        closest = np.flatnonzero((changes == changes.min()) & (changes < 99))
        nearest[name] = tuple(names[other] for other in closest)
    return nearest


def _changes(one: NDArray[np.int8], all_codes: NDArray[np.int8], *, relation: bool = True) -> NDArray[np.int64]:
    different: NDArray[np.bool_] = all_codes != one
    exchanged = (all_codes[:, 1] == one[5]) & (all_codes[:, 5] == one[1]) & different[:, 1] & different[:, 5]
    counted: NDArray[np.int64] = different.sum(1) - exchanged
    if not relation:
        counted -= different[:, 3]
    return counted


def _draw(seed: int, count: int) -> Pictures:
    return _drawn(seed, count)


@lru_cache(maxsize=2)
def _drawn(seed: int, count: int) -> Pictures:
    draw = random.Random(f"scenes {seed}")
    grains = np.random.default_rng(draw.getrandbits(64))
    images = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    labels, captions = [], []
    for place in range(count):
        first, second = _object(draw), _object(draw)
        while second == first:
            second = _object(draw)
        relation = draw.choice(tuple(RELATIONS))
        images[place] = _picture(first, relation, second, draw, grains)
        labels.append(" ".join((*first, relation, *second)))
        captions.append(_worded(labels[-1], draw))
    return Pictures(torch.from_numpy(images), tuple(captions), tuple(labels))


def _object(draw: random.Random) -> _Object:
    return draw.choice(tuple(SIZES)), draw.choice(tuple(COLOURS)), draw.choice(SHAPES)


def _picture(
    first: _Object, relation: str, second: _Object, draw: random.Random, grains: np.random.Generator
) -> NDArray[np.uint8]:
    """(side, side, 3)."""
    canvas = _background(grains)
    paint = ImageDraw.Draw(canvas)
    for _ in range(draw.randint(2, 6)):
        _clutter(paint, draw)
    radii = [draw.uniform(5.5, 7.5) if size == "small" else draw.uniform(11, 13.5) for size, _, _ in (first, second)]
    gap = draw.uniform(2, max(2.5, _FIELD - 4 - 2 * sum(radii)))
    length = 2 * sum(radii) + gap
    start = draw.uniform(1, max(1.0, _FIELD - 1 - length))
    along = (start + radii[0], start + length - radii[1])
    middle = draw.uniform(16, _FIELD - 16)
    for radius, at, (_, colour, shape) in zip(radii, along, (first, second), strict=True):
        off = min(max(middle + draw.uniform(-5, 5), radius + 1), _FIELD - 1 - radius)
        x, y = (at, off) if relation == "left" else (off, at)
        _shape(paint, shape, x, y, radius, _shade(COLOURS[colour], draw), draw)
    if draw.random() < 0.5:  # something thin in front
        _clutter(paint, draw)
    reduced = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    light = draw.uniform(0.8, 1.15) + draw.uniform(-0.12, 0.12) * np.linspace(-1, 1, SIDE)[:, None, None]
    noise = grains.normal(0, draw.uniform(4, 12), (SIDE, SIDE, 3))
    return (np.asarray(reduced, dtype=np.float64) * light + noise).clip(0, 255).round().astype(np.uint8)


def _background(grains: np.random.Generator) -> Image.Image:
    """Blotches of a grey, brown or bluish ground, none as bright in colour as an object."""
    ground = grains.uniform(90, 190) + grains.normal(0, 6, 3)
    cells = int(grains.integers(3, 12))
    blotches = ground + grains.normal(0, 16, (cells, cells, 1)) + grains.normal(0, 5, (cells, cells, 3))
    small = Image.fromarray(blotches.clip(0, 255).astype(np.uint8))
    return small.resize((_FIELD * _FINE, _FIELD * _FINE), Image.Resampling.BICUBIC)


def _clutter(paint: ImageDraw.ImageDraw, draw: random.Random) -> None:
    """A thin line or a dot in a dull colour."""
    side = _FIELD * _FINE
    grey = draw.uniform(40, 220)
    dull = tuple(round(min(255, max(0, grey + draw.uniform(-20, 20)))) for _ in range(3))
    x, y = draw.uniform(0, side), draw.uniform(0, side)
    if draw.random() < 0.5:
        angle, length = draw.uniform(0, math.pi), draw.uniform(0.2, 0.6) * side
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        paint.line((x, y, *end), fill=dull, width=draw.randint(2, 4))
    else:
        radius = draw.uniform(1, 2.2) * _FINE
        paint.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dull)


def _shade(colour: tuple[int, int, int], draw: random.Random) -> tuple[int, ...]:
    return tuple(round(min(255, max(0, channel + draw.uniform(-18, 18)))) for channel in colour)


def _shape(
    paint: ImageDraw.ImageDraw,
    shape: str,
    x: float,
    y: float,
    radius: float,
    colour: tuple[int, ...],
    draw: random.Random,
) -> None:
    """Around (x, y), slightly turned."""
    turn = draw.uniform(-0.2, 0.2)
    if shape == "circle":
        corners = [(1.0, math.tau * step / 24) for step in range(24)]
    elif shape == "square":
        corners = [(1.15, math.pi / 4 + math.pi / 2 * step) for step in range(4)]
    elif shape == "triangle":
        corners = [(1.15, math.pi / 2 * 3 + math.tau / 3 * step) for step in range(3)]
    else:
        thin = math.atan2(0.36, 1.0)
        around = [(-thin, 1.06), (thin, 1.06), (math.pi / 4, 0.51)]
        corners = [(reach, math.pi / 2 * arm + angle) for arm in range(4) for angle, reach in around]
    points = [
        (
            (x + radius * reach * math.cos(angle + turn)) * _FINE,
            (y + radius * reach * math.sin(angle + turn)) * _FINE,
        )
        for reach, angle in corners
    ]
    paint.polygon(points, fill=colour)


SCENES: Final = Kind(
    noises=("shuffled", "near", "attribute"),
    available=lambda: None,
    draw=_draw,
    near=near,
    worded=_worded,
    altered=altered,
)
