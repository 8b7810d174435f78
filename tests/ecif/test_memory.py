"""What is foretold of memory, against what a process takes."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ecif import Batch, Ekfac, GaussNewton, Objective, Params, Projected, Projection, project_batch
from ecif.curvature.memory import Shapes, ekfac_bytes, groups_bytes, projection_bytes
from ecif.neighbours import OF_TOWERS
from ecif.parameters import size

SHAPES = {"table": (20_000, 32), "text": (1000, 32), "image": (1000, 1000), "bias": (1000,)}


def embed(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    text = torch.nn.functional.embedding(texts, params["table"]).mean(1) @ params["text"].mT
    return text, images @ params["image"].mT + params["bias"]


def growth(kind: str) -> int:
    """Bytes by which the largest size of this process grows while a curvature is made."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    params = {name: 0.1 * torch.randn(shape, generator=g) for name, shape in SHAPES.items()}
    objective = Objective(embed, 5.0, 0.3, dict(params), 8)
    images, texts = torch.randn(8, 1000, generator=g), torch.randint(20_000, (8, 3), generator=g)
    batch = Batch(images, texts, torch.arange(8), torch.arange(8))
    small = {name: tensor[:4, :4] if tensor.ndim == 2 else tensor[:4] for name, tensor in params.items()}
    small_batch = Batch(images[:, :4], texts % 4, torch.arange(8), torch.arange(8))
    of = _OF[kind][0]
    of(Objective(embed, 5.0, 0.3, dict(small), 8), small, small_batch)  # what torch loads of itself comes first
    before = largest_size()
    of(objective, params, batch)
    return largest_size() - before


def largest_size() -> int:
    """Bytes that this process has had at most; `getrusage` would count those of the process that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def _ekfac(objective: Objective, params: Params, batch: Batch) -> None:
    Ekfac.of(objective, params, lambda: [batch, batch])


def _projected(objective: Objective, params: Params, batch: Batch) -> None:
    projection = Projection.of_size(params, 0, 64)
    part = project_batch(objective, params, batch, projection)
    Projected.finish(objective, projection, [part.curvature])


SOLVED = 4


def _groups(objective: Objective, params: Params, batch: Batch) -> None:
    rhs = torch.randn(SOLVED, size(params), dtype=torch.float64)
    GaussNewton(objective, params, lambda: [batch, batch], max_iterations=3).solve(rhs)


_OF: dict[str, tuple[Callable[[Objective, Params, Batch], None], Callable[[Shapes], int]]] = {
    "ekfac": (_ekfac, ekfac_bytes),
    "projected": (_projected, projection_bytes),
    "groups": (_groups, lambda shapes: groups_bytes(shapes) * SOLVED // OF_TOWERS),
}


@pytest.mark.parametrize("kind", list(_OF))
def test_the_estimate_is_within_a_factor_of_two(kind: str) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        taken = pool.apply(growth, (kind,))
    estimate = _OF[kind][1](SHAPES)
    assert 0.5 < taken / estimate < 2, (taken / 2**20, estimate / 2**20)


def test_a_vocabulary_counts_once() -> None:
    wide = {"token_embedding.weight": (49_408, 64)}
    assert ekfac_bytes(wide) < 2**30  # with a factor as wide as the vocabulary: 60 GB
