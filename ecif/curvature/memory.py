"""What the large parts of a curvature take, from the shapes of the weights alone, so that it is known before anything
runs: bytes of what is held at the same time; within a factor of two of what a run takes (`tests/ecif/test_memory.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ecif.curvature.ekfac import DRAWS, LONGEST
from ecif.curvature.projection import SIZE, sides_of
from ecif.linearise import directions_at_once
from ecif.neighbours import OF_TOWERS

Shapes = Mapping[str, Sequence[int]]
_DOUBLE = 8


def ekfac_bytes(shapes: Shapes) -> int:
    """Whichever is more: two sums of all factors that are merged, or these and their eigenvectors, with the workspace
    of the largest; or the eigenvectors with the eigenvalues along them and the pseudo-gradients of some draws."""
    sides = [side for shape in shapes.values() if len(shape) == 2 for side in shape if side <= LONGEST]
    factors = sum(side * side for side in sides)
    merging = 2 * factors + 3 * max((side * side for side in sides), default=0)
    P = _size(shapes)
    measuring = factors + 2 * P + 3 * directions_at_once(P, DRAWS) * P
    return max(merging, measuring) * _DOUBLE


def projection_bytes(shapes: Shapes) -> int:
    """Both sides of every linear map and the matrix for the rest, the matrix in the subspace, and some directions at a
    time in the space of the weights, there and back."""
    side, P = sides_of(shapes, SIZE), _size(shapes)
    maps = [shape for shape in shapes.values() if len(shape) == 2]
    held = sum(min(side, width) * width for shape in maps for width in shape)
    others = P - sum(math.prod(shape) for shape in maps)
    rest = min(side * side, others) * others
    return (held + rest + 4 * SIZE * SIZE + 3 * directions_at_once(P) * P) * _DOUBLE


def groups_bytes(shapes: Shapes) -> int:
    """What conjugate gradients hold of as many directions as validation pairs have groups at most
    (`neighbours.OF_TOWERS`): each of them, its answer, residual, next direction and the image of that, before and after
    a step, and in single precision what is pushed through the model."""
    return OF_TOWERS * (9 * _DOUBLE + _DOUBLE) * _size(shapes)


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
