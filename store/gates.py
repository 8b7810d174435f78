"""The gate of a job: bounds that its data must keep to, as its specification sets them, and the verdict on what was
measured. Nothing here reads a database: measures come from summaries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from store.strict import Strict
from store.summaries import GateCheck, GateVerdict

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Value = Annotated[float, Field(allow_inf_nan=False)]
At = Literal["mean", "0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1"]
Level = Literal["error", "warn"]
Measure = Literal["flagged", "noise", "rejected", "duplicates"]
MEASURES: tuple[Measure, ...] = ("flagged", "noise", "rejected", "duplicates")
OF_FLAGS: frozenset[Measure] = frozenset({"flagged", "noise"})
"""What a job measures only where it flags."""


class ColumnBound(Strict):
    """Where the mean or a quantile of a score must lie."""

    at: At = Field(default="mean", description="`mean`, or the level of a quantile")
    min: Value | None = None
    max: Value | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a bound of a column has `min`, `max` or both")
        return self


class Shares(Strict):
    """Shares from 0 to 1."""

    flagged: Share | None = Field(default=None, description="of the scored pairs, that are flagged")
    noise: Share | None = Field(default=None, description="of wrong pairs, as it is estimated")
    rejected: Share | None = Field(default=None, description="of all pairs of the upload, that were turned away")
    duplicates: Share | None = Field(default=None, description="of the usable pairs, that repeat an earlier image")

    def given(self) -> dict[Measure, float]:
        """Those that are bounded."""
        values = {name: getattr(self, name) for name in MEASURES}
        return {name: value for name, value in values.items() if value is not None}


class Bounds(Shares):
    """The bounds of one level; shares are at most these."""

    columns: Annotated[dict[Annotated[str, Field(max_length=60)], ColumnBound], Field(max_length=32)] = Field(
        default={}, description="by the name of a score, such as `clip_score`"
    )
    increase: Shares | None = Field(default=None, description="by how much a share may exceed that of the baseline")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.given() and not self.columns and not (self.increase and self.increase.given()):
            raise ValueError("a level bounds something: flagged, noise, rejected, duplicates, columns or increase")
        return self


class Gate(Strict):
    """What the data must be like. A broken `error` fails the gate, a broken `warn` is told; the job succeeds."""

    error: Bounds | None = None
    warn: Bounds | None = None
    baseline: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="an earlier job that has succeeded, which `increase` is held against"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not list(self.levels()):
            raise ValueError("a gate has bounds under `error`, `warn` or both")
        compares = any(bounds.increase and bounds.increase.given() for _, bounds in self.levels())
        if compares != (self.baseline is not None):
            raise ValueError("`increase` and `baseline` belong together: name the job to compare with, and by how much")
        return self

    def levels(self) -> Iterator[tuple[Level, Bounds]]:
        """The levels that have bounds."""
        if self.error is not None:
            yield "error", self.error
        if self.warn is not None:
            yield "warn", self.warn


@dataclass(frozen=True)
class Measured:
    """What a gate looks at: shares by name, of which some may not be known, and the distributions of the scores."""

    shares: Mapping[Measure, float | None]
    scores: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, summary: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> "Measured":
        """Of the summaries of a job and of its dataset; nothing where that is gone."""
        counts, flagging = summary["counts"], summary.get("flagging") or {}
        pairs, rejected, flagged = counts["pairs"], counts.get("rejected"), counts.get("flagged")
        equal = ((dataset or {}).get("duplicates") or {}).get("image")
        return cls(
            shares={
                "flagged": None if flagged is None else _share(flagged, counts["scored"]),
                "noise": flagging.get("estimated_noise_rate"),
                "rejected": None if rejected is None else _share(rejected, pairs + rejected),
                "duplicates": None if equal is None else _share(equal["pairs"] - equal["groups"], pairs),
            },
            scores=summary.get("scores") or {},
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def judge(gate: Gate, measured: Measured, baseline: Measured | None) -> GateVerdict:
    """The verdict on what was measured, with every check. What could not be measured does not pass."""
    checks = [check for level, bounds in gate.levels() for check in _of_level(gate, level, bounds, measured, baseline)]
    verdicts = {check["verdict"] for check in checks}
    worst: Literal["pass", "warn", "fail"] = "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"
    return {"verdict": worst, "baseline": gate.baseline, "checks": checks}


_IN_WORDS: dict[Measure, str] = {
    "flagged": "of the scored pairs are flagged",
    "noise": "of the pairs are estimated to be wrong",
    "rejected": "of the pairs were turned away",
    "duplicates": "of the pairs repeat an earlier image",
}


def _of_level(
    gate: Gate, level: Level, bounds: Bounds, measured: Measured, baseline: Measured | None
) -> Iterator[GateCheck]:
    for name, most in bounds.given().items():
        share = measured.shares[name]
        words = f"{_percent(share)} {_IN_WORDS[name]}; at most {_percent(most)} is allowed"
        yield _check(level, name, share, "at most", most, words)
    for name, more in (bounds.increase.given() if bounds.increase else {}).items():
        share, before = measured.shares[name], baseline.shares[name] if baseline is not None else None
        grown = None if share is None or before is None else share - before
        words = (
            f"{_percent(share)} {_IN_WORDS[name]}, against {_percent(before)} in {gate.baseline}; at most "
            f"{_percent(more)} more is allowed"
        )
        yield _check(level, f"increase.{name}", grown, "at most", more, words)
    for column, bound in bounds.columns.items():
        value = _value_at(measured.scores.get(column), bound.at)
        what = f"the mean of {column}" if bound.at == "mean" else f"the {bound.at} quantile of {column}"
        shown = "not known" if value is None else f"{value:.4g}"
        if bound.min is not None:
            words = f"{what} is {shown}; at least {bound.min:.4g} is allowed"
            yield _check(level, f"columns.{column}", value, "at least", bound.min, words)
        if bound.max is not None:
            words = f"{what} is {shown}; at most {bound.max:.4g} is allowed"
            yield _check(level, f"columns.{column}", value, "at most", bound.max, words)


def _value_at(distribution: Mapping[str, Any] | None, at: str) -> float | None:
    if distribution is None:
        return None
    value = distribution["mean"] if at == "mean" else distribution["quantiles"].get(at)
    return None if value is None else float(value)


_ROUNDING = 1e-12
"""Shares are quotients: 0.3 - 0.2 exceeds 0.1 by rounding alone."""


def _check(
    level: Level,
    rule: str,
    measured: float | None,
    comparison: Literal["at most", "at least"],
    bound: float,
    message: str,
) -> GateCheck:
    beyond = None if measured is None else measured - bound if comparison == "at most" else bound - measured
    holds = beyond is not None and beyond <= _ROUNDING
    verdict: Literal["pass", "warn", "fail"] = "pass" if holds else "fail" if level == "error" else "warn"
    return {
        "level": level,
        "rule": rule,
        "measured": measured,
        "comparison": comparison,
        "bound": bound,
        "verdict": verdict,
        "message": message,
    }


def _percent(share: float | None) -> str:
    return "a share that is not known" if share is None else f"{100 * share:.4g} %"
