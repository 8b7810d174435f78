"""Where memory does not suffice, fewer at once: the same answers, and memory runs out once."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ecif import GaussNewton, Hessian, flatten, linearise, project_batch, query_gradients, score_batch, traceback
from ecif.at_once import DIRECTIONS, AtOnce
from ecif.curvature import hessian
from ecif.curvature.projection import Projection
from tests.ecif.conftest import MakeWorld, World


@pytest.fixture(autouse=True)
def from_the_most() -> Iterator[None]:
    DIRECTIONS.reset()
    yield
    DIRECTIONS.reset()


def test_pieces_shrink_until_they_fit_and_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def compute(some: slice) -> list[int]:
        piece = list(range(100))[some]
        tried.append(len(piece))
        if len(piece) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return piece

    at_once = AtOnce("images", 64)
    with caplog.at_level(logging.WARNING, "ecif.at_once"):
        made = [number for piece in at_once.pieces(100, compute) for number in piece]
    assert made == list(range(100))
    assert tried == [64, 32, 16, *[8] * 12, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory with {size} images at once: {size // 2} from here on" for size in (64, 32, 16)
    ]


def test_what_does_not_fit_alone_is_an_error() -> None:
    def compute(size: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        AtOnce("images", 8).fitting(5, compute)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device on which three directions at a time are too many; returns the sizes that were tried."""
    real, tried = torch.func.vmap, []

    def vmap(function: Callable[..., Any], *arguments: Any, chunk_size: int | None = None) -> Callable[..., Any]:
        mapped = real(function, *arguments, chunk_size=chunk_size)

        def run(*inputs: Any) -> Any:
            if chunk_size is not None:
                tried.append(chunk_size)
                if chunk_size > 2:
                    raise torch.OutOfMemoryError
            return mapped(*inputs)

        return run

    for module in (linearise, hessian, traceback):
        monkeypatch.setattr(module, "vmap", vmap)
    return tried


def answers(world: World) -> dict[str, torch.Tensor]:
    """Everything that maps over directions, of one batch of a model with two towers."""
    objective, params, batch = world.objective, world.params, world.take(torch.arange(8))
    count = flatten(params).numel()
    directions = torch.randn(7, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    places = torch.tensor([1, 4])
    return {
        "scores": score_batch(objective, params, batch, directions).total,
        "gauss_newton": GaussNewton(objective, params, lambda: world.batches()).apply(directions),
        "hessian": Hessian(objective, params, lambda: world.batches()).apply(directions),
        "projected": project_batch(objective, params, batch, Projection.draw(params, 3, 0)).curvature,
        "queries": query_gradients(
            objective, params, batch.images[:2], batch.texts[:5], places, places.flip(0), "cross_entropy"
        ),
    }


def test_answers_do_not_depend_on_how_many_directions_fit(
    make_world: MakeWorld, request: pytest.FixtureRequest
) -> None:
    expected = answers(make_world())
    tried = request.getfixturevalue("narrow")
    found = answers(make_world())
    for name, answer in expected.items():
        torch.testing.assert_close(found[name], answer, rtol=1e-12, atol=1e-12, msg=name)
    assert tried[:3] == [7, 3, 1]
    assert set(tried[3:]) == {1}  # it is not tried again and again
