"""Where worker processes compute, tried without a GPU."""

import torch

from worker import devices


def test_towers_are_fitted_in_bfloat16_where_the_gpu_has_it(monkeypatch):
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    for supported, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=supported: answer)
        assert {devices.adam_precision(gpu, scope) for scope in ("lora", "all")} == {precision}
        assert devices.adam_precision(gpu, "heads") == "float32"
        assert devices.adam_precision(cpu, "all") == "float32"


def test_float32_is_float32(monkeypatch):
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "tf32"
    try:
        devices.compute_in_float32()
        found = {torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision}
        assert found == {"ieee"}
    finally:
        torch.backends.fp32_precision = before
