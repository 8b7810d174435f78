"""How answers for every pair are had, by the size of the model, the curvature and the scope."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from ecif import Dense, Diagonal, Ekfac, GaussNewton, Hessian, Identity
from ecif.curvature.base import Curvature
from ecif.curvature.choice import EFFORT, PROBES, CurvatureName, PerPair, Scope, draw_probes, from_products, per_pair
from tests.ecif.conftest import MakeWorld

SMALL, LARGE = 4096, 4097


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian", "ekfac", "projected", "identity"])
def test_the_choice(curvature: CurvatureName, scope: Scope) -> None:
    small, large = per_pair(curvature, SMALL, scope), per_pair(curvature, LARGE, scope)
    if curvature == "projected":
        assert small == large == "projected"
        return
    assert small == "exact"
    dear = scope != "heads" and curvature in ("gauss_newton", "hessian")
    assert large == ("diagonal" if dear else "probes")
    assert PROBES[small] == 0 < PROBES[large]


def test_whole_towers_are_solved_less_far_than_heads() -> None:
    assert EFFORT["heads"].tolerance < EFFORT["all"].tolerance
    assert EFFORT["heads"].max_passes > EFFORT["all"].max_passes
    assert EFFORT["lora"] == EFFORT["all"]


@pytest.mark.parametrize(("name", "kind"), [("gauss_newton", GaussNewton), ("hessian", Hessian)])
def test_small_matrices_are_written_out_and_large_ones_are_products(
    make_world: MakeWorld,
    monkeypatch: pytest.MonkeyPatch,
    name: Literal["gauss_newton", "hessian"],
    kind: type[GaussNewton] | type[Hessian],
) -> None:
    world = make_world(l2=1.0)
    given = (world.objective, world.params, world.batches)
    assert isinstance(from_products(name, *given, damping=20.0, scope="heads"), Dense)
    monkeypatch.setattr("ecif.curvature.choice.LARGEST", 0)
    matrix = from_products(name, *given, damping=0.5, scope="all")
    assert isinstance(matrix, kind)
    assert (matrix.damping, matrix.tolerance, matrix.max_iterations) == (0.5, 1e-2, 100)


def test_probes_come_solved_from_curvatures_that_know_their_root(make_world: MakeWorld) -> None:
    world = make_world(l2=1.0)
    given = (world.objective, world.params, world.batches)
    settings: dict[str, Any] = {"damping": 0.1, "seed": 3}
    matrix = GaussNewton(*given, damping=0.1)
    ekfac = Ekfac.of(*given, damping=0.1)
    diagonal = Diagonal.of(*given, damping=0.1, seed=3)
    ways: tuple[tuple[Curvature, PerPair, Tensor], ...] = (
        (ekfac, "probes", ekfac.probes(16, 3)),
        (matrix, "diagonal", diagonal.probes(8, 3)),
    )
    for curvature, method, rows in ways:
        drawn = draw_probes(curvature, *given, method=method, **settings)
        assert drawn.solved
        assert torch.equal(drawn.rows, rows)
    plain = draw_probes(Identity(), *given, method="probes", **settings)
    assert plain.solved
    assert plain.rows.shape == (16, 220)
    unsolved = draw_probes(matrix, *given, method="probes", **settings)
    assert not unsolved.solved
    assert unsolved.rows.shape == (16, 220)
