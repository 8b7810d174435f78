"""Influence on the nearest validation pairs, against explicit gradients and a dense solve."""

import pytest
import torch
from torch import Tensor

from ecif import GaussNewton, cut_batches, dense_matrix, flatten, pair_gradients, positive, score_batch
from ecif.neighbours import FEW, OF_TOWERS, Neighbourhood, joint, most_groups
from tests.ecif.conftest import MakeWorld, World


def embedded(world: World, of: World) -> Tensor:
    """(n, 2E) of the pairs of another world, by this one's model."""
    return joint(*world.objective.embed(world.params, of.data.images, of.data.texts))


def by_hand(world: World, others: World, gradients: Tensor, k: int) -> Tensor:
    """Pair by pair: who is near, by both cosines; and (1/k) Σ g_mᵀ H⁻¹ g_n with every gradient and H written out."""
    H = dense_matrix(GaussNewton(world.objective, world.params, world.batches))
    scores = torch.zeros(world.n, dtype=torch.float64)
    mine, theirs = (world.objective.embed(world.params, of.data.images, of.data.texts) for of in (world, others))
    for places in cut_batches(world.plan[0], world.batch_size):
        moves = torch.linalg.solve(H, pair_gradients(world.objective, world.params, world.take(places)).mT)
        for n, move in zip(places.tolist(), moves.mT, strict=True):
            cosine = sum(torch.cosine_similarity(a[n][None], b) for a, b in zip(mine, theirs, strict=True))
            assert isinstance(cosine, Tensor)
            nearest = sorted(range(others.n), key=cosine.tolist().__getitem__)[-k:]
            scores[n] = torch.stack([gradients[m] @ move for m in nearest]).mean()
    return scores


def computed(world: World, others: World, neighbourhood: Neighbourhood, k: int) -> Tensor:
    batches = [others.take(cut) for cut in cut_batches(torch.arange(others.n), others.batch_size)]
    curvature = GaussNewton(world.objective, world.params, world.batches, tolerance=1e-10)
    gradients = neighbourhood.gradients(world.objective, world.params, batches)
    directions = curvature.solve(gradients).x
    scores, near = torch.zeros(world.n, dtype=torch.float64), embedded(world, world)
    for places in cut_batches(world.plan[0], world.batch_size):
        along = score_batch(world.objective, world.params, world.take(places), directions).total.mT
        scores[places] = neighbourhood.mean_over_nearest(near[places], along, k)
    return scores


@pytest.fixture
def worlds(make_world: MakeWorld) -> tuple[World, World]:
    return make_world(), make_world(n=19, seed=1)


@pytest.fixture
def own_gradients(worlds: tuple[World, World]) -> Tensor:
    """(V, P): ∇Pos_m of every validation pair in its batch."""
    world, others = worlds
    of_batches = [
        torch.func.jacrev(lambda p, cut=cut: positive(world.objective.similarity(p, others.take(cut))))(world.params)
        for cut in cut_batches(torch.arange(others.n), others.batch_size)
    ]
    return torch.cat([flatten(gradients, leading=1) for gradients in of_batches])


@pytest.mark.parametrize("k", [1, 4])
def test_with_a_group_for_each_it_is_exact(worlds: tuple[World, World], own_gradients: Tensor, k: int) -> None:
    world, others = worlds
    neighbourhood = Neighbourhood.of_pairs(embedded(world, others), others.n, seed=0)
    expected = by_hand(world, others, own_gradients, k)
    torch.testing.assert_close(computed(world, others, neighbourhood, k), expected, rtol=1e-6, atol=1e-10)
    assert float(expected.std()) > 0


def test_with_fewer_groups_a_neighbour_counts_as_the_mean_of_its_group(
    worlds: tuple[World, World], own_gradients: Tensor
) -> None:
    world, others = worlds
    neighbourhood = Neighbourhood.of_pairs(embedded(world, others), 5, seed=0)
    assert neighbourhood.groups == 5
    means = torch.stack([own_gradients[neighbourhood.of == group].mean(0) for group in neighbourhood.of.tolist()])
    found = computed(world, others, neighbourhood, 3)
    torch.testing.assert_close(found, by_hand(world, others, means, 3), rtol=1e-6, atol=1e-10)
    exact = by_hand(world, others, own_gradients, 3)
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.5


def test_of_all_validation_pairs_it_is_influence(worlds: tuple[World, World]) -> None:
    world, others = worlds
    neighbourhood = Neighbourhood.of_pairs(embedded(world, others), others.n, seed=0)
    batches = [others.take(cut) for cut in cut_batches(torch.arange(others.n), others.batch_size)]
    gradient = world.objective.validation_gradient(world.params, batches, others.n)
    direction = GaussNewton(world.objective, world.params, world.batches, tolerance=1e-10).solve(gradient[None]).x
    influence = torch.zeros(world.n, dtype=torch.float64)
    for places in cut_batches(world.plan[0], world.batch_size):
        influence[places] = score_batch(world.objective, world.params, world.take(places), direction).total[0]
    torch.testing.assert_close(computed(world, others, neighbourhood, 100), influence, rtol=1e-6, atol=1e-10)


def test_near_pairs_share_a_group_and_equal_ones_need_no_second() -> None:
    g = torch.Generator().manual_seed(3)
    centres = torch.randn(6, 12, generator=g)
    of = torch.randint(6, (300,), generator=g)
    rows = torch.nn.functional.normalize(centres[of] + 0.05 * torch.randn(300, 12, generator=g), dim=1)
    found = Neighbourhood.of_pairs(rows, 6, seed=0)
    assert torch.equal(found.of, Neighbourhood.of_pairs(rows, 6, seed=0).of)
    assert len(torch.unique(torch.stack([of, found.of], 1), dim=0)) == found.groups == 6
    assert Neighbourhood.of_pairs(rows[:1].expand(40, -1), 6, seed=0).groups == 1
    with pytest.raises(ValueError, match="0 pairs"):
        Neighbourhood.of_pairs(rows[:0], 6, seed=0)


def test_there_are_more_groups_where_they_cost_no_pass() -> None:
    assert most_groups(128, direct=False) == most_groups(4096, direct=True) == FEW
    assert most_groups(128, direct=True) == most_groups(128, direct=True, towers=True) == 1024
    assert most_groups(128, direct=False, towers=True) == OF_TOWERS < FEW
