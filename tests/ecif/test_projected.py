import pytest
import torch

from ecif import Dense, GaussNewton, exact_self_influence, score_batch
from ecif.curvature.projected import Projected, project_batch
from ecif.curvature.projection import Projection
from ecif.traceback import relative_influence, role_gradients
from tests.ecif.conftest import MakeWorld


@pytest.mark.parametrize("side", [1, 3, 5])
def test_coordinates_are_projections_of_the_gradients(make_world: MakeWorld, side: int) -> None:
    world = make_world()
    batch, projection = world.batches()[0], Projection.draw(world.params, side, seed=3)
    assert projection.size == 3 * side * side
    torch.testing.assert_close(projection.rows @ projection.rows.T, torch.eye(projection.size).double())
    gradients = role_gradients(world.objective, world.params, batch)
    projected = project_batch(world.objective, world.params, batch, projection)
    torch.testing.assert_close(projected.rows, projection.down(gradients))
    vectors = torch.randn(2, projection.size, dtype=torch.float64)
    torch.testing.assert_close(projection.down(projection.up(vectors)), vectors)


def test_a_whole_space_gives_the_exact_answers(make_world: MakeWorld) -> None:
    world = make_world(l2=1.0)
    given = (world.objective, world.params, world.batches)
    dense, batch = Dense.of(GaussNewton(*given)), world.batches()[0]
    projection = Projection.draw(world.params, 10, seed=0)
    parts = [project_batch(world.objective, world.params, b, projection) for b in world.batches()]
    whole = Projected.finish(world.objective, projection, [part.curvature for part in reversed(parts)])
    rows, queries = parts[0].rows, torch.randn(3, 220, dtype=torch.float64)
    scores = score_batch(world.objective, world.params, batch, dense.solve(queries).x)
    torch.testing.assert_close(whole.task_influence(rows, queries), torch.stack([scores.positive, scores.negative], -1))
    exact = exact_self_influence(world.objective, world.params, batch, dense).value
    torch.testing.assert_close(whole.self_influence(rows), exact)
    influences = -dense.solve(role_gradients(world.objective, world.params, batch).flatten(0, 1)).x
    torch.testing.assert_close(
        whole.relative_influence(rows, queries), relative_influence(influences.unflatten(0, (-1, 2)), queries)
    )


def test_a_side_of_nothing_is_refused(make_world: MakeWorld) -> None:
    with pytest.raises(ValueError, match="side"):
        Projection.draw(make_world().params, 0, 0)
