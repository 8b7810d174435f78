"""How many worker processes a machine gets."""

from pathlib import Path

import pytest

from standalone.services import worker_processes


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 1),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 1),
        ({"ECIF_DEVICE": "cpu"}, 1),
        ({"ECIF_DEVICE": "cuda:1"}, 1),
        ({"ECIF_WORKERS": "5"}, 5),
    ],
)
def test_one_for_each_gpu_that_may_be_used(two_gpus: Path, environment: dict[str, str], processes: int) -> None:
    assert worker_processes(environment, two_gpus) == processes


def test_one_without_gpus(tmp_path: Path) -> None:
    assert worker_processes({}, tmp_path) == 1


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_nonsense_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match="ECIF_WORKERS"):
        worker_processes({"ECIF_WORKERS": value}, tmp_path)
