"""Groups of equal pairs against the plain definition."""

from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from store.states import DuplicateKind
from worker.ingest.duplicates import Fingerprints, find_equal


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(-3, 3)), max_size=40))
def test_groups_of_two_and_more_with_their_first(steps: Any) -> None:
    positions = np.cumsum([step for step, _ in steps], dtype=np.int64)
    hashes = np.array([value for _, value in steps], dtype=np.int64)
    groups = defaultdict(list)
    for position, value in zip(positions.tolist(), hashes.tolist(), strict=True):
        groups[value].append(position)
    several = [group for group in groups.values() if len(group) > 1]
    found = find_equal(positions, hashes)
    assert list(found.rows()) == sorted((group[0], position) for group in several for position in group)
    assert found.groups == len(several)


def test_a_further_caption_of_an_image_is_no_duplicate_of_it() -> None:
    prints = Fingerprints()
    prints.add(0, {DuplicateKind.IMAGE: 7, DuplicateKind.CAPTION: 1})
    prints.add(1, {DuplicateKind.IMAGE: 7, DuplicateKind.CAPTION: 1}, further=True)
    assert prints.equal()[DuplicateKind.IMAGE].groups == 0
    assert list(prints.equal()[DuplicateKind.CAPTION].rows()) == [(0, 0), (0, 1)]
    prints.add(2, {DuplicateKind.IMAGE: 7, DuplicateKind.CAPTION: 2})
    assert list(prints.equal()[DuplicateKind.IMAGE].rows()) == [(0, 0), (0, 2)]
