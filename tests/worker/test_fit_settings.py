"""How far a fit goes: to a minimum, or a few passes over many pairs."""

from typing import Any

import pytest

from ecif import FitSettings
from store.specification import JobSpec
from worker.analysis.fit import MANY, MANY_WITH_INFLUENCE, settings_of


def settings(n_pairs: int, n_validation: int = 0, **spec: Any) -> tuple[FitSettings, bool]:
    given = {"task": "misalignment", "dataset": "ds_1", "fit": {"epochs": 200}, **spec}
    return settings_of(JobSpec.model_validate(given), n_pairs, n_validation, "float32")


@pytest.mark.parametrize(
    ("n_validation", "spec"),
    [
        (0, {}),
        (100, {"validation": {"fraction": 0.1}}),
        (100, {"validation": {"fraction": 0.1}, "task": "valuation"}),
        (0, {"objective": {"scope": "all"}, "model": {"architecture": "tiny"}}),
    ],
)
def test_of_few_pairs_it_goes_to_the_minimum(n_validation: int, spec: dict[str, Any]) -> None:
    far, bounded = settings(3400, n_validation, **spec)
    assert not bounded
    assert (far.epochs, far.tolerance) == (200, FitSettings.tolerance)


def test_of_many_pairs_it_is_a_few_passes() -> None:
    for n_pairs, n_validation in ((MANY, 0), (MANY_WITH_INFLUENCE, 100)):
        few, bounded = settings(n_pairs, n_validation)
        assert bounded
        assert (few.epochs, few.adam_share) == (5, 1.0)
    assert not settings(MANY_WITH_INFLUENCE - 1, 100)[1]
