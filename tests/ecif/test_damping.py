from collections.abc import Iterator

import pytest

from ecif import Batch, GaussNewton, choose_damping, dense_matrix, spectrum
from tests.ecif.conftest import MakeWorld


def test_automatic_damping_lifts_a_weak_l2_only(make_world: MakeWorld) -> None:
    world = make_world(l2=0.0)
    given = (world.objective, world.params, world.batches)
    trace = float(dense_matrix(GaussNewton(*given)).trace())
    assert spectrum(*given, probes=400).mean == pytest.approx(trace / (220 * 24), rel=0.05)
    choice = choose_damping("auto", *given)
    assert choice.value == pytest.approx(0.01 * choice.mean_eigenvalue)
    assert "mean eigenvalue" in choice.reason
    strong = make_world(l2=1.0)
    assert choose_damping("auto", strong.objective, strong.params, strong.batches).value == 0
    assert choose_damping(0.25, *given).value == 0.25
    for bad in (-1.0, float("nan"), "strong"):
        with pytest.raises(ValueError, match="damping"):
            choose_damping(bad, *given)
    lone = make_world(n=1, l2=0.0, duplicates=False)
    assert choose_damping("auto", lone.objective, lone.params, lone.batches).value == 1


def test_a_sample_of_the_batches_will_do(make_world: MakeWorld) -> None:
    world = make_world(l2=0.0)
    read = []

    def batches() -> Iterator[Batch]:
        for batch in world.batches() * 100:
            read.append(batch)
            yield batch

    seen = spectrum(world.objective, world.params, batches, probes=8)
    assert len(read) == 128
    trace = float(dense_matrix(GaussNewton(world.objective, world.params, world.batches)).trace())
    assert seen.mean == pytest.approx(trace / (220 * 24), rel=0.1)
