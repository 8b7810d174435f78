"""The kernels that can be differentiated forwards, and twice (design section 6)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def forward_mode() -> Iterator[None]:
    """Inside, attention runs in kernels with forward-mode and second derivatives.

    The fused attention kernels and the inference fast path of ``nn.MultiheadAttention`` have neither and
    raise NotImplementedError. The setting of before is restored on the way out.
    """
    _load()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@cache
def _load() -> None:
    """Let torch load its forward-mode rules now: it compiles them with its own deprecated torch.jit.script
    at the first jvp of a process, and that warning is not ours to pass on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))
