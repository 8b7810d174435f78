"""How answers for every pair are had, by the size of the model, the curvature and the scope."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from ecif import Dense, Diagonal, Ekfac, GaussNewton, Hessian, Identity, Objective, Params
from ecif.curvature.base import Curvature
from ecif.curvature.choice import (
    EFFORT,
    PROBES,
    CurvatureName,
    PerPair,
    Scope,
    draw_probes,
    from_products,
    kronecker_terms,
    per_pair,
)
from ecif.curvature.kronecker import Kronecker
from tests.ecif.conftest import MakeWorld
from tests.ecif.test_heads import Heads


def sized(parameters: int, *, linear: bool = False, **settings: Any) -> tuple[Objective, Params]:
    """An objective over so many weights that is never evaluated."""
    params = {"text.weight": torch.zeros(1, parameters)}
    return Objective(lambda *_: (torch.zeros(1), torch.zeros(1)), 1.0, 0.3, params, linear=linear, **settings), params


@pytest.mark.parametrize("scope", ["heads", "lora", "all"])
@pytest.mark.parametrize("curvature", ["gauss_newton", "hessian", "ekfac", "projected", "identity"])
def test_the_choice(curvature: CurvatureName, scope: Scope) -> None:
    small, large = (per_pair(curvature, *sized(count, n_pairs=1000), scope) for count in (4096, 4097))
    if curvature == "projected":
        assert small == large == "projected"
        return
    assert small == "exact"
    dear = scope != "heads" and curvature in ("gauss_newton", "hessian")
    assert large == ("diagonal" if dear else "probes")
    assert PROBES[small] == 0 < PROBES[large]


@pytest.mark.parametrize(
    ("parameters", "pairs", "method"),
    [
        (72, 100_000, "exact"),
        (1024, 1000, "exact"),
        (1024, 10_000, "kronecker"),
        (4096, 10, "kronecker"),
        (524_288, 10, "kronecker"),
    ],
)
def test_heads_are_written_out_where_that_is_little_work(parameters: int, pairs: int, method: PerPair) -> None:
    assert per_pair("gauss_newton", *sized(parameters, linear=True, n_pairs=pairs), "heads") == method


def test_what_kronecker_factors_cannot_stand_for_is_exact_or_by_probes() -> None:
    of_heads: dict[str, Any] = {"linear": True, "n_pairs": 100_000}
    assert per_pair("hessian", *sized(4096, **of_heads), "heads") == "exact"
    assert per_pair("gauss_newton", *sized(4096, **of_heads), "heads", spans=True) == "exact"
    assert per_pair("gauss_newton", *sized(4097, **of_heads, partitions=2), "heads") == "probes"
    objective, params = sized(4097, **of_heads)
    assert per_pair("gauss_newton", objective, params | {"logit_scale": torch.zeros(())}, "heads") == "probes"


def test_whole_towers_are_solved_less_far_than_heads() -> None:
    assert EFFORT["heads"].max_passes > EFFORT["all"].max_passes
    assert EFFORT["lora"] == EFFORT["all"]


@pytest.mark.parametrize(("name", "kind"), [("gauss_newton", GaussNewton), ("hessian", Hessian)])
def test_small_matrices_are_written_out_and_large_ones_are_products(
    make_world: MakeWorld,
    name: Literal["gauss_newton", "hessian"],
    kind: type[GaussNewton] | type[Hessian],
) -> None:
    world = make_world(l2=1.0)
    given = (world.objective, world.params, world.batches)
    assert isinstance(from_products(name, *given, damping=20.0, scope="heads", method="exact"), Dense)
    matrix = from_products(name, *given, damping=0.5, scope="all", method="diagonal")
    assert isinstance(matrix, kind)
    assert (matrix.damping, matrix.tolerance, matrix.max_iterations) == (0.5, 1e-2, 100)
    assert matrix.preconditioner is None


def test_directions_of_heads_are_preconditioned() -> None:
    heads = Heads(bias=False)
    given = (heads.objective, heads.params, heads.batches)
    matrix = from_products("gauss_newton", *given, damping=0.1, scope="heads", method="kronecker")
    assert isinstance(matrix, GaussNewton)
    assert isinstance(matrix.preconditioner, Kronecker)
    assert set(kronecker_terms(matrix)) == {"text", "image"}
    assert from_products("hessian", *given, damping=9.0, scope="heads", method="probes").preconditioner is None  # type: ignore[attr-defined]


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
