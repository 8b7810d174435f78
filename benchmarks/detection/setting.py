"""What the jobs and the peers of one setting are given: pairs, a model, uploads."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.detection.cells import Cell, Scale
from benchmarks.detection.data import Noisy, noisy
from benchmarks.detection.judging import RATE
from benchmarks.detection.training import Embedded, embedded_by
from benchmarks.one_process import Job, OneProcess
from benchmarks.sections import Json


@dataclass(frozen=True)
class Setting:
    """What jobs and peers of a cell are given.

    dataset, clean: ids at the service. embedded: by the model as it is given, and pretrained: its weights; None where
    it starts from random ones.
    """

    cell: Cell
    scale: Scale
    pairs: Noisy
    service: OneProcess
    dataset: str
    clean: str
    model: Json | None
    embedded: Embedded | None
    pretrained: Path | None

    @classmethod
    def of(cls, cell: Cell, scale: Scale, service: OneProcess, pretrained: Path | None) -> Setting:
        """Upload everything."""
        pairs = noisy_pairs(cell, scale)
        if cell.model == "scratch":
            dataset = service.dataset("pairs.zip", image_archive(pairs.images, pairs.captions))
            clean = service.dataset("clean.zip", image_archive(pairs.clean.images, pairs.clean.captions))
            model: Json | None = {"architecture": scale.architecture, "pretrained": None}
            return cls(cell, scale, pairs, service, dataset, clean, model, None, None)
        assert pretrained is not None
        embedded = embedded_by(pretrained, scale.architecture, pairs.images, pairs.captions)
        if cell.model == "transferred":
            dataset = service.dataset("pairs.zip", image_archive(pairs.images, pairs.captions))
            clean = service.dataset("clean.zip", image_archive(pairs.clean.images, pairs.clean.captions))
            model = {"id": service.model(pretrained.read_bytes(), scale.architecture)}
            return cls(cell, scale, pairs, service, dataset, clean, model, embedded, pretrained)
        held = embedded_by(pretrained, scale.architecture, pairs.clean.images, pairs.clean.captions)
        if cell.model == "rotated":
            turn = _rotation(embedded.images.shape[1], cell.seed)
            embedded, held = (Embedded(both.images @ turn, both.texts) for both in (embedded, held))
        dataset = service.dataset("pairs.zip", embedding_archive(embedded, pairs.captions))
        clean = service.dataset("clean.zip", embedding_archive(held, pairs.clean.captions))
        return cls(cell, scale, pairs, service, dataset, clean, None, embedded, pretrained)

    def job(self, **specification: Any) -> Job:
        """A `misalignment` job on the pairs."""
        given: Json = {"task": "misalignment", "dataset": self.dataset, "objective": {"seed": self.cell.seed}}
        if self.model is not None:
            given["model"] = self.model
        if self.cell.model == "scratch":
            given["objective"]["scope"] = "all"
            given["fit"] = {"epochs": self.scale.training}
        given["flag"] = {"false_discovery_rate": RATE}
        return self.service.job(given | specification)


def noisy_pairs(cell: Cell, scale: Scale) -> Noisy:
    """The pairs of a setting."""
    return noisy(
        cell.kind,
        cell.noise,
        cell.rate,
        cell.seed,
        n=scale.pairs,
        n_clean=scale.clean,
        n_reserved=scale.reserved,
        n_pool=scale.pool,
    )


def image_archive(images: Tensor, captions: Sequence[str]) -> bytes:
    """A zip of PNG files named by their place, and a metadata.csv."""
    table, packed = io.StringIO(), io.BytesIO()
    rows = csv.writer(table)
    rows.writerow(("file_name", "caption"))
    with zipfile.ZipFile(packed, "w") as archive:
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            rows.writerow((f"{place}.png", caption))
            picture = io.BytesIO()
            Image.fromarray(image.numpy()).save(picture, "PNG", compress_level=1)
            archive.writestr(f"{place}.png", picture.getvalue())
        archive.writestr("metadata.csv", table.getvalue())
    return packed.getvalue()


def embedding_archive(embedded: Embedded, captions: Sequence[str] | None) -> bytes:
    """A zip of image.npy, text.npy and, where there are captions, a metadata.csv of them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in (("image.npy", embedded.images), ("text.npy", embedded.texts)):
            array = io.BytesIO()
            np.save(array, content.numpy())
            archive.writestr(name, array.getvalue())
        if captions is not None:
            table = io.StringIO()
            rows = csv.writer(table)
            rows.writerow(("key", "caption"))
            rows.writerows(enumerate(captions))
            archive.writestr("metadata.csv", table.getvalue())
    return packed.getvalue()


def _rotation(width: int, seed: int) -> Tensor:
    turn: Tensor = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0]
    return turn
