"""The plane of two principal components, against the singular value decomposition."""

import pytest
import torch

from ecif.plane import principal_plane


def test_it_is_the_plane_of_the_largest_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 7, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5, 1, 3, 1, 1, 1])
    plane = principal_plane(rows + 100)
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = u[:, :2] * s[:2]
    expected = expected / expected.abs().max()
    signs = (expected * plane.points).sum(0).sign()
    torch.testing.assert_close(plane.points, (expected * signs).float(), atol=1e-5, rtol=0)
    assert plane.explained == pytest.approx(float((s[:2] ** 2).sum() / (s**2).sum()))
    assert float(plane.points.abs().max()) == 1


def test_the_same_rows_in_another_order_are_at_the_same_places() -> None:
    rows = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(principal_plane(rows).points[order], principal_plane(rows[order]).points)


@pytest.mark.parametrize("rows", [torch.ones(3, 4), torch.ones(1, 4), torch.arange(3.0)[:, None]])
def test_rows_that_hold_no_plane(rows: torch.Tensor) -> None:
    plane = principal_plane(rows)
    assert plane.points.shape == (len(rows), 2)
    assert bool(plane.points.isfinite().all())
