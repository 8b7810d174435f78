"""The packages of others, in an environment of their own that `requirements/peers.txt` pins."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.attribution.ours import Point
from benchmarks.attribution.peers.run import METHODS
from ecif.batches import Batch
from ecif.similarity import false_negatives

_ROOT = Path(__file__).parents[2]
_REQUIREMENTS = _ROOT / "requirements" / "peers.txt"
_HOME = _ROOT / ".peers"
_PATIENCE = 900
_LAST_LINES = 400


class NoPeers(Exception):  # noqa: N818  it is no fault of ours
    """They cannot be installed here."""


@dataclass(frozen=True)
class Answer:
    """Of one method: scores (n,) and processor seconds, or the last line that it said before it failed."""

    scores: Tensor | None
    seconds: float
    failed: str | None = None


class Peers:
    """Their environment, made where it is missing or older than what is pinned."""

    def __init__(self) -> None:
        self._python = _HOME / "bin" / "python"
        stamp, wanted = _HOME / ".installed", hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        uv = str(Path(sys.executable).with_name("uv"))
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(_HOME)],
            [uv, "pip", "sync", "--quiet", "--python", str(self._python), str(_REQUIREMENTS)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoPeers(done.stderr.strip()[-_LAST_LINES:])
        stamp.write_text(wanted)

    def answers(self, point: Point) -> dict[str, Answer]:
        """Of every method of theirs, each in a process of its own."""
        with tempfile.TemporaryDirectory(prefix="ecif-peers-") as folder:
            given = Path(folder) / "problem.pt"
            torch.save(_problem(point), given)
            return {method: self._ask(method, given, Path(folder) / "answer.json") for method in METHODS}

    def _ask(self, method: str, given: Path, answer: Path) -> Answer:
        answer.unlink(missing_ok=True)
        run = Path(__file__).parent / "peers" / "run.py"
        try:
            done = subprocess.run(
                [str(self._python), str(run), method, str(given), str(answer)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE,
                cwd=given.parent,
            )
        except subprocess.TimeoutExpired:
            return Answer(None, _PATIENCE, f"took longer than {_PATIENCE} seconds")
        if done.returncode or not answer.exists():
            return Answer(None, 0.0, (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
        told = json.loads(answer.read_text())
        return Answer(torch.tensor(told["scores"], dtype=torch.float64), told["seconds"])


def _problem(point: Point) -> dict[str, object]:
    """In float32, which these packages compute in."""
    world = point.world
    return {
        "theta": _narrow(point.params),
        "checkpoints": [_narrow(params) for params in point.checkpoints],
        "scale": world.objective.scale,
        "ridge": world.objective.l2 + point.damping,
        "train": [_batch(batch) for batch in world.train],
        "validation": [_batch(batch) for batch in world.validation],
    }


def _narrow(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float().contiguous() for name, tensor in params.items()}


def _batch(batch: Batch) -> dict[str, Tensor]:
    return {
        "texts": batch.texts.float(),
        "images": batch.images.float(),
        "excluded": false_negatives(batch.caption_group, batch.image_group),
        "places": batch.image_group,
    }
