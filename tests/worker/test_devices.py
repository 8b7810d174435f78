"""Where worker processes compute, tried without a GPU."""

from typing import Any

import pytest
import torch
from billiard import get_context

from store.settings import Settings
from worker.analysis import models


def device(asked: str, gpus: int) -> torch.device:
    return models.device_of(Settings(ecif_device=asked), gpus)


@pytest.mark.parametrize(
    ("asked", "gpus", "expected"),
    [
        ("auto", 0, ["cpu", "cpu", "cpu"]),
        ("auto", 1, ["cuda:0", "cuda:0", "cuda:0"]),
        ("auto", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 3, ["cuda:1", "cuda:1", "cuda:1"]),
        ("cpu", 3, ["cpu", "cpu", "cpu"]),
        ("cuda", 0, ["cuda", "cuda", "cuda"]),  # asked for and not there: torch says so
    ],
)
def test_the_processes_of_a_host_take_its_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, expected: list[str]
) -> None:
    found = []
    for place in range(3):
        monkeypatch.setattr(models, "place_in_pool", lambda place=place: place)
        found.append(str(device(asked, gpus)))
    assert found == expected


def test_a_process_knows_its_place_in_the_pool() -> None:
    """As billiard's pool, which is Celery's, starts its eighth process: `index` is set, and then it is spawned."""
    code = "import sys; from worker.analysis.models import place_in_pool; sys.exit(place_in_pool())"
    process = get_context("spawn").Process(target=exec, args=(code, {}))
    process.index = 7
    process.start()
    process.join(120)
    assert process.exitcode == 7
    assert models.place_in_pool() == 0


def test_towers_are_fitted_in_bfloat16_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    for supported, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=supported: answer)
        assert {models.adam_precision(gpu, scope) for scope in ("lora", "all")} == {precision}
        assert models.adam_precision(gpu, "heads") == "float32"
        assert models.adam_precision(cpu, "all") == "float32"


def test_float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    backends: Any = torch.backends  # without types there
    before = backends.fp32_precision
    backends.fp32_precision = "tf32"
    try:
        models.compute_in_float32()
        found = {backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision}
        assert found == {"ieee"}
    finally:
        backends.fp32_precision = before
