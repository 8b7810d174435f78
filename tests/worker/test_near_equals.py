"""Groups of nearly equal embeddings against all comparisons, and how many are found where not all are compared."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from worker.analysis.records import row_hashes
from worker.ingest.duplicates import NEAR_COSINE, codes, find_equal, find_near


def found_in(rows: npt.NDArray[Any], positions: npt.NDArray[Any] | None = None) -> list[Any]:
    positions = np.arange(len(rows)) if positions is None else positions
    equal = find_equal(positions, row_hashes(rows))
    return list(find_near(positions, equal, codes(rows), lambda wanted: rows[wanted]).rows())


def moved(rows: npt.NDArray[Any], cosine: float, generator: np.random.Generator) -> npt.NDArray[Any]:
    """Rows at this cosine to each of `rows`, (n, E)."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    away = generator.standard_normal(rows.shape)
    away -= (away * rows).sum(1, keepdims=True) / lengths**2 * rows
    away *= lengths / np.linalg.norm(away, axis=1, keepdims=True)
    return (cosine * rows + np.sqrt(1 - cosine**2) * away).astype(np.float32)


def defined(rows: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """(first, position) of all groups, from the matrix of cosines."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    with np.errstate(invalid="ignore"):
        near = (rows.astype(np.float64) @ rows.T) / np.outer(lengths, lengths) >= NEAR_COSINE
    near |= (rows[:, None] == rows[None]).all(-1)
    reached = near
    while not np.array_equal(further := reached @ reached, reached):
        reached = further
    first = reached.argmax(axis=1)
    return sorted((int(f), n) for n, f in enumerate(first) if reached[n].sum() > 1)


@pytest.mark.parametrize("seed", range(4))
def test_few_embeddings_are_all_compared(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((300, 4)).astype(np.float32)
    rows[generator.integers(300, size=20)] = 0
    rows[::17] = rows[1::17][: len(rows[::17])]
    wanted = defined(rows)
    assert len(wanted) > 50  # in four dimensions chance alone makes neighbours
    assert found_in(rows) == wanted


def test_positions_are_told_and_not_rows() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 1, 0, 2]]
    assert found_in(rows, np.array([3, 5, 8, 9])) == [(3, 3), (3, 8)]


@pytest.mark.parametrize(("cosine", "least", "most"), [(0.995, 0.99, 1.0), (0.9905, 0.95, 1.0), (0.985, 0.0, 0.0)])
def test_among_many_nearly_all_are_found_and_none_too_many(cosine: float, least: float, most: float) -> None:
    """In a narrow cone of clusters, as the embeddings of CLIP lie."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((40, 128)) + 1.2
    rows = (centres[generator.integers(40, size=6000)] + generator.standard_normal((6000, 128))).astype(np.float32)
    rows[5000:] = moved(rows[:1000], cosine, generator)
    together = found_in(rows)
    assert least <= sum((first, first + 5000) in together for first in range(1000)) / 1000 <= most
    assert {first for first, _ in together} <= set(range(1000))


def test_a_crowd_is_one_group_and_is_not_compared_pair_by_pair() -> None:
    generator = np.random.default_rng(0)
    rows = (generator.standard_normal(64) + 0.05 * generator.standard_normal((5000, 64))).astype(np.float32)
    compared = 0

    def read(wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
        nonlocal compared
        compared += len(wanted)
        return rows[wanted]

    positions = np.arange(5000)
    near = find_near(positions, find_equal(positions, row_hashes(rows)), codes(rows), read)
    assert (near.groups, len(near.position)) == (1, 5000)
    assert compared < 5000 * 50


def test_nothing_is_near_to_nothing() -> None:
    assert found_in(np.empty((0, 4), dtype=np.float32)) == []
    assert found_in(np.ones((1, 4), dtype=np.float32)) == []
