"""What a shard frees is used again until its end, and given back then."""

import os
import resource
from pathlib import Path

import pytest
import torch

from worker.attempts import memory

_MATRIX = 8 << 20  # bytes


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _matrices() -> list[torch.Tensor]:
    return [torch.full((_MATRIX // 4,), 1.0) for _ in range(10)]


@pytest.mark.skipif(memory.glibc() is None, reason="the C library is not glibc, whose allocator this is about")
def test_the_pages_of_freed_matrices_are_not_cleared_again() -> None:
    memory.begin()
    try:
        for _ in range(2):
            _matrices()
        before = _faults()
        for _ in range(5):
            held = _matrices()
            most = _resident()
            held.clear()
        assert _faults() - before < 10 * _MATRIX // resource.getpagesize()
        assert _resident() > most - 5 * _MATRIX
    finally:
        memory.end()
    assert _resident() < most - 5 * _MATRIX
