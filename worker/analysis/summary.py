"""The summary of a job: counts, what the model, the fit and the solver were, how the scores are spread, and what to be
warned of."""

from typing import cast

import numpy as np
from torch import Tensor

from ecif.self_influence import probed_relative_standard_error
from ecif.traceback import span_relative_standard_error
from store import shards
from store.phases import Phase
from store.summaries import (
    CheckpointUsed,
    Counts,
    CurvatureReport,
    Distribution,
    Encoding,
    FitReport,
    LossUsed,
    Methods,
    PhaseReport,
    Ranked,
    Removal,
    SelfInfluence,
)
from worker.analysis.checkpoints import named_checkpoints
from worker.analysis.job_view import JobView
from worker.analysis.models import starts_from_nothing
from worker.outputs import BaselinesOutput, CurvatureOutput, EditOutput, EncodeOutput, FitOutput, Json, TraceOutput

_NOT_STATIONARY = 1e-2  # Newton decrement in units of the summed loss: a hundredth of what one pair weighs


def counts(view: JobView, flagged: int | None) -> Counts:
    """How many pairs did what."""
    plan = view.plan
    return {
        "pairs": view.dataset.pair_count,
        "rejected": view.dataset.rejected_count,
        "scored": plan.scored,
        "held_out": view.dataset.pair_count - plan.scored,
        "validation": plan.validation,
        "calibration": plan.calibration,
        "batches": plan.batches,
        "flagged": flagged,
        "truncated_captions": truncated_captions(view),
    }


def truncated_captions(view: JobView) -> int | None:
    """Captions whose end the model does not read, over all datasets of the job; `None` without a model."""
    if view.spec.model is None:
        return None
    return sum(output.truncated for output in _encoded(view))


def methods(view: JobView) -> Methods:
    """What the model, its encoding, the loss, the fit, the curvature and the self-influence were."""
    # A dataset of embeddings was made by a model that nobody named here: its digest is null.
    report: Methods = {
        "model": {"digest": None},
        "encoding": None,
        "fit": None,
        "curvature": None,
        "self_influence": None,
        "loss": loss(view),
    }
    encoded = _encoded(view)
    if encoded:
        report["model"] = {"digest": encoded[0].model_digest, "encoder": encoded[0].encoder}
        report["encoding"] = _encoding(view.outputs(EncodeOutput))
    if sent := named_checkpoints(view.spec):
        report["checkpoints"] = [_checkpoint(view, checkpoint_id) for checkpoint_id in sent]
    fitted = view.output(FitOutput)
    if fitted is not None:
        report["fit"] = cast("FitReport", _without(fitted.as_json(), "params", "checkpoints"))
    solved = view.output(CurvatureOutput)
    if solved is not None:
        shown = _without(solved.as_json(), "kept", "self_influence") | _traced(view)
        report["curvature"] = cast("CurvatureReport", shown)
        report["self_influence"] = None if view.spec.task == "traceback" else _self_influence(solved)
    return report


def ranked(view: JobView, counted: Counts, ranked_by: str, scores: dict[str, Distribution]) -> Ranked:
    """What every task says of its ranking."""
    used = methods(view)
    report: Ranked = {
        "counts": counted,
        "ranked_by": ranked_by,
        "scores": scores,
        "model": used["model"],
        "loss": loss(view),
        "encoding": used["encoding"],
        "fit": used["fit"],
        "curvature": used["curvature"],
        "self_influence": used["self_influence"],
        "warnings": warnings(view),
    }
    if "checkpoints" in used:
        report["checkpoints"] = used["checkpoints"]
    return report


def loss(view: JobView) -> LossUsed:
    """Which loss the job had, and the bias of its logits to begin with."""
    wanted = view.spec.objective
    of_model = next((output.logit_bias for output in _encoded(view)), None)
    if wanted.loss == "softmax" or (wanted.loss is None and of_model is None):
        return {"name": "softmax", "logit_bias": None}
    return {"name": "sigmoid", "logit_bias": of_model if wanted.logit_bias is None else wanted.logit_bias}


def _encoded(view: JobView, checkpoint: str | None = None) -> list[EncodeOutput]:
    """What the job's own model encoded, or one of its checkpoints."""
    return [output for output in view.outputs(EncodeOutput) if output.checkpoint == checkpoint]


def _checkpoint(view: JobView, checkpoint_id: str) -> CheckpointUsed:
    """What one of the checkpoints was; whole towers have no features, so none were encoded."""
    prepared, encoded = view.output(BaselinesOutput), _encoded(view, checkpoint_id)
    return {
        "id": checkpoint_id,
        "digest": prepared.checkpoints[checkpoint_id] if prepared is not None else None,
        "encoding": _encoding(encoded) if encoded else None,
    }


def _encoding(encoded: list[EncodeOutput]) -> Encoding:
    """How many images and captions, over all datasets of the job, went through a model; the rest of the pairs' were
    there already, from earlier jobs or from an equal one."""
    pairs = sum(output.count for output in encoded)
    images = sum(output.encoded.images for output in encoded)
    captions = sum(output.encoded.captions for output in encoded)
    return {
        "images": {"encoded": images, "reused": pairs - images},
        "captions": {"encoded": captions, "reused": pairs - captions},
    }


def removal(view: JobView) -> Removal | None:
    """What taking pairs out did; `None` for other tasks."""
    edited = view.output(EditOutput)
    return edited.report if edited is not None else None


def _traced(view: JobView) -> Json:
    """How far the solves for the queries of a traceback went, the worst of them."""
    traced = view.outputs(TraceOutput)
    if not traced:
        return {}
    solves = [output.solve for output in traced if output.solve is not None]
    probes = traced[0].probes
    error = span_relative_standard_error(probes) if probes else 0.0
    report: Json = {"spans": traced[0].spans, "spans_relative_standard_error": error}
    if solves:
        report["iterations"] = max(solve.iterations for solve in solves)
        report["relative_residual"] = max(solve.relative_residual for solve in solves)
        report["converged"] = all(solve.converged for solve in solves)
    return report


_SELF_INFLUENCE = {
    "exact": "exact",
    "kronecker": "kronecker",
    "projected": "exact inside the projection",
    "probes": "random probes",
    "diagonal": "random probes through the curvature's diagonal",
}


def _self_influence(solved: CurvatureOutput) -> SelfInfluence:
    estimated = solved.self_influence
    error = probed_relative_standard_error(estimated.probes) if estimated.probes else 0.0
    method = _SELF_INFLUENCE[estimated.method]
    if estimated.method == "probes" and solved.curvature == "hessian":
        method += ", each solved with the Hessian and with Gauss-Newton, whose draws they are"  # the error is a bound
    return {"method": method, "probes": estimated.probes, "relative_standard_error": error}


def _without(report: Json, *names: str) -> Json:
    return {name: value for name, value in report.items() if name not in names}


def warnings(view: JobView) -> list[str]:
    """What a careful reader of the result should know."""
    messages: list[str] = []
    messages += _stationarity(view)
    curvature = methods(view)["curvature"]
    if curvature is not None and not curvature["converged"]:
        messages.append(
            f"curvature not inverted to its tolerance: relative residual {curvature['relative_residual']:.2g} "
            f"after {curvature['iterations']} passes; raise influence.damping or objective.l2"
        )
    truncated = truncated_captions(view)
    if truncated:
        messages.append(f"{truncated} captions are longer than the model reads and were cut")
    if len({tuple(output.encoder.items()) for output in view.outputs(EncodeOutput)}) > 1:
        messages.append(
            "parts of the data were encoded by workers with different libraries, during an upgrade: "
            "summary.model.encoder names one of them; another job encodes all of it alike"
        )
    plan, size, softmax = view.plan, view.spec.objective.batch_size, loss(view)["name"] == "softmax"
    if plan.pairs < size:
        messages.append(f"batch_size {size} is more than the {plan.pairs} pairs: one batch holds them all")
    elif plan.pairs // plan.batches == 1:
        zero = ", and its scores are 0" if softmax else ""
        messages.append(f"the last batch holds a single pair: it has no negatives{zero}")
    if plan.pairs == 1:
        zero = ": every score of it is 0" if softmax else ""
        messages.append(f"a single pair has no negatives{zero}")
    if starts_from_nothing(view.spec) and view.spec.fit is None:
        messages.append("the model is random and was not fitted: its scores mean nothing")
    if view.dataset.rejected_count:
        messages.append(f"{view.dataset.rejected_count} pairs were turned away: see /datasets/{view.dataset.id}/pairs")
    return messages


def _stationarity(view: JobView) -> list[str]:
    fitted, solved = view.output(FitOutput), view.output(CurvatureOutput)
    if solved is None or (fitted is not None and fitted.stationary):
        return []
    if view.spec.task == "misalignment":  # which is not ranked by influence; `summary.fit` and `.curvature` say it all
        return []
    decrement, least = solved.newton_decrement, ""
    if decrement is None:
        decrement, least = solved.decrement_bound, "at most "
    if decrement is not None and decrement < _NOT_STATIONARY:
        return []
    says = f", Newton decrement {least}{decrement:.3g} in units of the summed loss" if decrement is not None else ""
    advice = "raise fit.epochs" if view.spec.fit is not None else "let `fit` minimise the objective first"
    return [
        f"not stationary: gradient norm {solved.gradient_norm:.3g}{says}; "
        f"influences describe a model that is not at its minimum; {advice}"
    ]


def phase(report: shards.PhaseReport, pairs: int) -> PhaseReport:
    """How long a phase took, how fast it was and how much memory a shard had at most. A pass, an epoch or a look
    goes over every pair."""
    passes = (Phase.FIT, Phase.CURVATURE, Phase.DETECT)
    handled = report.units * pairs if report.phase in passes else report.units
    return {
        "phase": report.phase,
        "version": report.version,
        "shards": report.shards,
        "seconds": round(report.seconds, 3),
        "pairs": handled,
        "pairs_per_second": round(handled / report.seconds, 1) if report.seconds else None,
        "memory_bytes": report.memory_bytes,
        "device_memory_bytes": report.device_memory_bytes,
    }


_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = 40


def describe(score: Tensor) -> Distribution:
    """Mean, standard deviation, quantiles and a histogram of a score (n,)."""
    values = score.double().numpy()
    least, most = float(values.min()), float(values.max())
    # What differs by rounding only has no bins: it is drawn as numpy draws what does not differ at all.
    distinct = most - least > _BINS * np.spacing(max(abs(least), abs(most)))
    counts, edges = np.histogram(values, _BINS, None if distinct else (least - 0.5, most + 0.5))
    return {
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "quantiles": {f"{q:g}": float(v) for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
