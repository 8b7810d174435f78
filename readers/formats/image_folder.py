"""Images in folders named by their class, as Hugging Face's ImageFolder and torchvision lay them out."""

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import final

from readers.archives.archive import Archive
from readers.formats.definition import Contents, DatasetFormat, is_image, not_of_format
from readers.pair_fields import image_pairs
from readers.pairs import Item
from readers.printable import printable

DEFAULT_TEMPLATE = "a photo of a {label}"
_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "images"})


@final
class ImageFolder:
    """Pairs in archive order. The caption is the template with the folder's name for `{label}`, `_` read as a blank.

    The key is the file's path; the folder's name as it is stands in `extra` under `label`.
    """

    ignored_columns: tuple[str, ...] = ()
    unreferenced = 0
    listable = True

    def __init__(self, archive: Archive, images: int, template: str) -> None:
        self._archive, self._template = archive, template
        self.total: int | None = images

    def __iter__(self) -> Iterator[Item]:
        for position, name in enumerate(self._archive.members):
            if not is_image(name):
                continue
            label = class_of(name)
            yield from image_pairs(
                where=printable(name),
                key=name,
                caption=self._template.replace("{label}", label.replace("_", " ")) if label else None,
                values={"label": label},
                taken=(),
                image=partial(self._archive.image, position),
                limits=self._archive.limits,
            )


def class_of(name: str) -> str:
    """The name of the folder that a file lies in; nothing for one that lies in none."""
    return posixpath.basename(posixpath.dirname(name))


def has_classes(archive: Archive) -> bool:
    """Whether the folders are classes: several, not only splits, every image equally deep, as ImageFolder asks."""
    depths, labels = set(), set()
    for name in filter(is_image, archive.members):
        depths.add(name.count("/"))
        labels.add(class_of(name))
        if len(depths) > 1:
            return False
    return len(labels) > 1 and "" not in labels and not {label.lower() for label in labels} <= _SPLITS


def _choose(_archive: Archive, contents: Contents) -> list[int]:
    if not contents.images:
        raise not_of_format("imagefolder", "the archive holds no image")
    return []


IMAGE_FOLDER = DatasetFormat(
    name="imagefolder",
    kind="images",
    precedence=90,
    fits=lambda archive, contents: bool(contents.images) and has_classes(archive),
    choose=_choose,
    read=lambda archive, contents, _chosen, template: ImageFolder(archive, contents.images, template),
)
"""images in folders named by their class, from which captions are made"""
