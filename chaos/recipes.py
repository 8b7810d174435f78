"""The jobs that are asked for: few and small, each many times, so that every result has one to be compared with."""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

_PAIRS = 48
_WIDTH = 8
_WRONG = 8


@dataclass(frozen=True)
class Recipe:
    """One job, to be asked for under any number of keys."""

    name: str
    settings: dict[str, Any]
    upload: bytes

    @property
    def form(self) -> dict[str, Any]:
        """Its body when the data come with it."""
        spec = (None, json.dumps(self.settings), "application/json")
        return {"dataset": (f"{self.name}.zip", self.upload, "application/zip"), "spec": spec}

    def naming(self, dataset_id: str) -> dict[str, Any]:
        """Its body when the data are there already."""
        return {**self.settings, "dataset": dataset_id}


def recipes(number: int, receiver: str) -> list[Recipe]:
    """`number` different jobs over embeddings of their own; a few hundred milliseconds of work each. `receiver` is told
    of the end of each."""
    told = {"notify": {"url": receiver}}
    return [Recipe(f"recipe-{n}", _settings(n) | told, _embeddings(n)) for n in range(number)]


def _settings(number: int) -> dict[str, Any]:
    if number % 2:
        return {"task": "valuation", "validation": {"fraction": 0.25}, "objective": {"batch_size": 16, "seed": number}}
    return {"task": "misalignment", "fit": {"epochs": 60}, "objective": {"batch_size": 16, "seed": number}}


def _embeddings(seed: int) -> bytes:
    """image.npy and text.npy (48, 8) float32, the first captions swapped."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(_PAIRS, _WIDTH)).astype(np.float32)
    text = image + 0.3 * generator.normal(size=(_PAIRS, _WIDTH)).astype(np.float32)
    text[:_WRONG] = text[:_WRONG][::-1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("image.npy", image), ("text.npy", text)):
            buffer = io.BytesIO()
            np.save(buffer, content)
            archive.writestr(name, buffer.getvalue())
    return out.getvalue()
