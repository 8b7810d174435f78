"""How large a job the method `magic` is for: what the API refuses at once, and the plan where it knows the weights.

Its fit is made about three times over, and every step of it takes one product with a Hessian. So the time goes with the
steps times what a step costs: its pairs times the weights, and a part that no weight explains.
"""

from store.errors import InvalidError
from store.specification import JobSpec

LARGEST_WORK = 1e11
"""Pairs × epochs × partitions × (weights + `_BESIDE`): some minutes on one core."""

_BESIDE = 50_000


def magic_work(spec: JobSpec, pairs: int, weights: int, epochs: int | None = None) -> float:
    """Of a filled-in specification, in the units of `LARGEST_WORK`."""
    assert spec.fit is not None  # noqa: S101  refused where it is
    passes = (epochs or spec.fit.epochs or 0) * spec.objective.partitions
    return float(passes * pairs * (weights + _BESIDE))


def check_magic(spec: JobSpec) -> None:
    """Raises InvalidError where there is no fit of heads to go back through."""
    named = []
    if spec.objective.scope != "heads":
        named.append(f"objective.scope {spec.objective.scope}")
    if spec.fit is None:
        named.append("fit null")
    if named:
        raise InvalidError(
            "magic_not_available",
            "magic goes back through a fit of two heads on features that are kept, from where the job starts: "
            f"not with {' and '.join(named)}",
            "methods",
        )


def check_magic_size(spec: JobSpec, pairs: int, weights: int) -> None:
    """Raises InvalidError where the fit has too many steps, or too large ones; says how many epochs it may have."""
    if magic_work(spec, pairs, weights) <= LARGEST_WORK:
        return
    most = int(LARGEST_WORK / magic_work(spec, pairs, weights, epochs=1))
    assert spec.fit is not None  # noqa: S101  as above
    instead = f"lower fit.epochs to {most} or less" if most else "take fewer pairs"
    raise InvalidError(
        "magic_too_large",
        f"magic goes back through every step of its fit: {spec.fit.epochs} epochs of {pairs:,} pairs and "
        f"{weights:,} weights are too many. {instead[0].upper()}{instead[1:]}, or leave magic out",
        "methods",
    )
