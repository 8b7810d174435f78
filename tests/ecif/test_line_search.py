import math
from collections.abc import Callable

import pytest

from ecif.fit.line_search import LineSearch

Function = Callable[[float], float]
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "far": (lambda t: (t - 1e4) ** 2, lambda t: 2 * (t - 1e4)),
    "near": (lambda t: (t - 1e-5) ** 2 * 1e6, lambda t: 2e6 * (t - 1e-5)),
    "steepening": (lambda t: math.cos(t) + 1e-3 * t * t, lambda t: -math.sin(t) + 2e-3 * t - 1e-2),
    "more_thuente": (lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),
    "wiggly": (lambda t: 0.1 * (t - 5) ** 2 + math.sin(4 * t), lambda t: 0.2 * (t - 5) + 4 * math.cos(4 * t)),
    "wall": (lambda t: -math.log(2 - t) - 3 * t if t < 2 else math.nan, lambda t: 1 / (2 - t) - 3),
}


def mirrored(f: Function, slope: Function) -> tuple[Function, Function]:
    return lambda t: f(-t), lambda t: -slope(-t)


@pytest.mark.parametrize("first", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_ends_where_the_strong_wolfe_conditions_hold(name: str, first: float) -> None:
    f, slope = FUNCTIONS[name]
    if slope(0.0) >= 0:
        f, slope = mirrored(f, slope)
    value, start = f(0.0), slope(0.0)
    line = LineSearch.start(value, start, first)
    while not line.accepted and not line.exhausted:
        t = line.step
        there = f(t)
        line = line.observe(there, slope(t) if math.isfinite(there) else math.nan)
        assert LineSearch.from_tensor(line.to_tensor()) == line
    assert line.accepted
    t = line.low.step
    enough = f(t) <= value + 1e-4 * t * start
    assert enough or (f(t) <= value and 0.9 * start <= slope(t) <= (2e-4 - 1) * start)  # Hager and Zhang
    assert abs(slope(t)) <= 0.9 * abs(start)


def test_rounding_is_decided_by_slopes() -> None:
    line = LineSearch.start(1e9, -1.0, 1.0).observe(1e9 + 64, 0.1)
    assert line.accepted


def test_a_direction_that_only_climbs_is_given_up() -> None:
    line = LineSearch.start(1.0, -1e-3, 1.0)
    while not line.exhausted:
        line = line.observe(5.0 + line.step, 1.0)
    assert not line.accepted
    assert line.low.step == 0
