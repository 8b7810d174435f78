"""The table of the pipeline is whole: every phase is in it, and its modules hold what it says."""

from importlib import import_module
from typing import Any, get_type_hints

import pytest

from store.phases import OwnerKind, Phase
from worker.attempts.task import Done
from worker.outputs import Output
from worker.pipeline import PIPELINE, Step

STEPS = [(kind, step) for kind, steps in PIPELINE.items() for step in steps]


def test_every_phase_is_somebodys() -> None:
    assert {step.phase for _, step in STEPS} == set(Phase)


def test_a_phase_is_once_in_the_work_of_an_owner() -> None:
    for steps in PIPELINE.values():
        assert len({step.phase for step in steps}) == len(steps)


@pytest.mark.parametrize(("kind", "step"), STEPS, ids=lambda value: str(getattr(value, "phase", value)))
def test_a_step_runs_and_is_cut_as_the_table_says(kind: OwnerKind, step: Step) -> None:
    module = import_module(step.module)
    left = get_type_hints(module.run)["return"]
    leaves: Any = step.leaves
    assert left in (Done[leaves], Done[Output])  # the latter where one module runs several phases
    assert step.single or callable(module.cut)
    before = [earlier.leaves for earlier in PIPELINE[kind][: PIPELINE[kind].index(step)]]
    assert set(step.reads) <= set(before)


@pytest.mark.parametrize("kind", PIPELINE)
def test_the_last_step_ends_its_owner(kind: OwnerKind) -> None:
    assert callable(import_module(PIPELINE[kind][-1].module).finish)
