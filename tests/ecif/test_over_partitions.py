"""Quadratic forms of several partitions against an explicit dense oracle: gradients averaged, then squared."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ecif import Batch, Dense, GaussNewton, cut_batches, dense_matrix, probe_rhs, rank_embeddings
from ecif import over_partitions as module
from ecif.directions import Directions
from ecif.over_partitions import influence_gram_of, self_influence_of
from ecif.self_influence import averaged_self_influence
from ecif.traceback import role_gradients
from tests.ecif.conftest import MakeWorld, World

PARTITIONS = 3


def placed(world: World) -> Iterator[tuple[Tensor, Batch]]:
    for row in world.plan:
        for places in cut_batches(row, world.batch_size):
            yield places, world.take(places)


def averaged(world: World) -> Tensor:
    """∇Pos_n and ∇Neg_n of every pair, averaged over the partitions, (N, 2, P)."""
    total = torch.zeros(world.n, 2, 220, dtype=torch.float64)
    for places, batch in placed(world):
        total[places] += role_gradients(world.objective, world.params, batch) / PARTITIONS
    return total


@pytest.fixture(scope="module")
def world(make_world: MakeWorld) -> World:
    return make_world(partitions=PARTITIONS, l2=0.5)


@pytest.mark.parametrize("numbers", [2**25, 7 * 220])
def test_gradients_are_averaged_before_they_are_squared(
    world: World, monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    monkeypatch.setattr(module, "_NUMBERS", numbers)
    matrix = GaussNewton(world.objective, world.params, world.batches)
    inverse, g = torch.linalg.inv(dense_matrix(matrix)), averaged(world)
    given = (world.objective, world.params, lambda: placed(world))
    some = torch.randperm(world.n, generator=torch.Generator().manual_seed(1))[:17]
    whole = g.sum(1)
    truth = torch.einsum("np,pq,nq->n", whole, inverse, whole)
    torch.testing.assert_close(self_influence_of(*given, some, Dense.of(matrix)), truth[some])
    spans = g @ inverse
    torch.testing.assert_close(influence_gram_of(*given, some, Dense.of(matrix)), (spans @ spans.mT)[some])


def test_probes_estimate_the_square_of_the_average(world: World) -> None:
    curvature = Dense.of(GaussNewton(world.objective, world.params, world.batches))
    k = 4000
    x = curvature.solve(probe_rhs(world.objective, world.params, world.batches, k, seed=1, damping=0.0)).x
    along, sums = Directions(x[:0], x), torch.zeros(world.n, k, dtype=torch.float64)
    batches = (batch for _, batch in placed(world))
    each = along.score(world.objective, world.params, batches)
    for (places, _), columns in zip(placed(world), each, strict=True):
        assert "self_influence" not in columns  # it is no matter of one batch
        sums[places] += columns["along_probes"] / PARTITIONS
    whole = averaged(world).sum(1)
    truth = torch.linalg.vecdot(whole, curvature.solve(whole).x)
    off = (averaged_self_influence(sums) / truth - 1) / (2 / k) ** 0.5
    assert float(off.abs().max()) < 4
    mean_of_squares = torch.zeros(world.n, dtype=torch.float64)
    for places, batch in placed(world):
        g = role_gradients(world.objective, world.params, batch).sum(1)
        mean_of_squares[places] += torch.linalg.vecdot(g, curvature.solve(g).x) / PARTITIONS
    assert float((mean_of_squares / truth).median()) > 1.05  # what was reported before


def test_two_equal_partitions_are_one() -> None:
    """Embeddings in one batch meet the same pairs in every partition."""
    g = torch.Generator().manual_seed(0)
    images = torch.randn(24, 5, generator=g, dtype=torch.float64)
    texts = images + 0.3 * torch.randn(24, 5, generator=g, dtype=torch.float64)
    one, two = (
        rank_embeddings(images, texts, temperature=0.2, batch_size=32, epochs=20, partitions=count).scores
        for count in (1, 2)
    )
    torch.testing.assert_close(two["self_influence"], one["self_influence"], rtol=1e-3, atol=1e-8)
