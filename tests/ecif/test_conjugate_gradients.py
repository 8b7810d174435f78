import pytest
import torch
from torch import Tensor

from ecif import NotConverged, conjugate_gradients
from ecif.solve.solution import State


@pytest.fixture
def system() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(60, 60, generator=g, dtype=torch.float64))[0]
    H = Q @ torch.diag(torch.logspace(0, 3, 60, dtype=torch.float64)) @ Q.T
    return H, torch.randn(3, 60, generator=g, dtype=torch.float64)


def test_many_right_hand_sides_share_passes(system: tuple[Tensor, Tensor]) -> None:
    H, rhs = system
    passes = 0

    def apply(v: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return v @ H

    solution = conjugate_gradients(apply, rhs, tolerance=1e-9)
    assert passes <= solution.iterations + 3
    torch.testing.assert_close(solution.x, torch.linalg.solve(H, rhs.T).T, rtol=1e-6, atol=1e-8)
    low, high = solution.eigenvalue_range
    assert low == pytest.approx(1, rel=1e-3)
    assert high == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize("stop", [1, 7, 30])
def test_a_resumed_solve_equals_an_undisturbed_one(system: tuple[Tensor, Tensor], stop: int) -> None:
    H, rhs = system
    states: list[State] = []
    whole = conjugate_gradients(lambda v: v @ H, rhs, tolerance=1e-6, on_state=states.append)
    resumed = conjugate_gradients(lambda v: v @ H, rhs, tolerance=1e-6, state=states[stop - 1])
    assert torch.equal(resumed.x, whole.x)
    assert resumed.iterations == whole.iterations
    assert resumed.eigenvalue_range == whole.eigenvalue_range
    with pytest.raises(ValueError, match="another"):
        conjugate_gradients(lambda v: v @ H, 2 * rhs, state=states[0])


def test_a_solve_goes_on_where_the_right_hand_side_is_rounded_otherwise(system: tuple[Tensor, Tensor]) -> None:
    """As on another device than that of the attempt before."""
    H, rhs = system
    states: list[State] = []
    conjugate_gradients(lambda v: v @ H, rhs, tolerance=1e-6, on_state=states.append)
    elsewhere = rhs * (1 + 1e-7)
    resumed = conjugate_gradients(lambda v: v @ H, elsewhere, tolerance=1e-6, state=states[1])
    assert resumed.converged
    torch.testing.assert_close(resumed.x @ H, elsewhere, rtol=1e-5, atol=1e-5)


def test_an_unconverged_end_is_reported_or_raised(system: tuple[Tensor, Tensor]) -> None:
    H, rhs = system
    solution = conjugate_gradients(lambda v: v @ H, rhs, tolerance=1e-9, max_iterations=5)
    assert not solution.converged
    truth = (rhs - solution.x @ H).norm(dim=1) / rhs.norm(dim=1)
    torch.testing.assert_close(solution.relative_residual, truth)
    with pytest.raises(NotConverged, match="5 iterations"):
        conjugate_gradients(lambda v: v @ H, rhs, tolerance=1e-9, max_iterations=5, strict=True)


def test_a_floating_point_floor_ends_the_solve_and_is_told(system: tuple[Tensor, Tensor]) -> None:
    H, rhs = system
    solution = conjugate_gradients(lambda v: v @ H.float(), rhs.float(), tolerance=1e-12, max_iterations=2000)
    assert not solution.converged
    assert 1e-12 < float(solution.relative_residual.max()) < 1e-3
    assert solution.iterations < 2000
    drifted = conjugate_gradients(lambda v: (v.float() @ H.float()).double(), rhs, tolerance=2e-4)
    assert drifted.converged


def test_zero_and_unusable_right_hand_sides(system: tuple[Tensor, Tensor]) -> None:
    H, _ = system
    solution = conjugate_gradients(lambda v: v @ H, torch.zeros(2, 60, dtype=torch.float64))
    assert solution.converged
    assert solution.iterations == 0
    assert solution.eigenvalue_range is None
    for bad in (torch.zeros(60), torch.full((1, 60), torch.nan)):
        with pytest.raises(ValueError, match="finite"):
            conjugate_gradients(lambda v: v @ H, bad)


def test_nothing_asked_is_nothing_solved() -> None:
    solution = conjugate_gradients(lambda _: pytest.fail("no pass is needed"), torch.zeros(0, 5))
    assert solution.converged
    assert solution.x.shape == (0, 5)
