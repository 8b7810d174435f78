"""What the summary tells: counts, what the model, the fit and the solver were, and what to be warned of."""

from ecif.self_influence import probed_relative_standard_error
from store.shards import PhaseReport
from store.states import Phase
from worker.job_view import JobView
from worker.models import starts_from_nothing
from worker.task import Json

_NOT_STATIONARY = 1e-2  # Newton decrement in units of the summed loss: a hundredth of what one pair weighs


def counts(view: JobView, flagged: int | None) -> Json:
    """How many pairs did what."""
    plan = view.plan
    return {
        "pairs": view.dataset.pair_count,
        "rejected": view.dataset.rejected_count,
        "scored": plan["scored"],
        "held_out": view.dataset.pair_count - plan["scored"],
        "validation": plan["validation"],
        "calibration": plan["calibration"],
        "batches": plan["batches"],
        "flagged": flagged,
        "truncated_captions": truncated_captions(view),
    }


def truncated_captions(view: JobView) -> int | None:
    """Captions whose end the model does not read, over all datasets of the job; `None` without a model."""
    if view.spec.model is None:
        return None
    return sum(int(output["truncated"]) for output in view.outputs[Phase.ENCODE])


def methods(view: JobView) -> Json:
    """What the model, its encoding, the fit, the curvature and the self-influence were."""
    # A dataset of embeddings was made by a model that nobody named here: its digest is null.
    told: Json = {"model": {"digest": None}, "encoding": None, "fit": None, "curvature": None, "self_influence": None}
    if view.outputs[Phase.ENCODE]:
        told["model"] = {"digest": view.outputs[Phase.ENCODE][0]["model_digest"]}
        told["encoding"] = _encoding(view)
    fitted = view.output(Phase.FIT)
    if fitted is not None:
        told["fit"] = _without(fitted, "params", "losses", "checkpoints", "last_look", "look_weight")
    curvature = view.output(Phase.CURVATURE)
    if curvature is not None:
        told["curvature"] = _without(curvature, "kept", "self_influence") | _traced(view)
        told["self_influence"] = None if view.spec.task == "traceback" else _self_influence(curvature["self_influence"])
    return told


def _encoding(view: JobView) -> Json:
    """How many images and captions, over all datasets of the job, went through the model; the rest of the pairs' were
    there already, from earlier jobs or from an equal one."""
    outputs = view.outputs[Phase.ENCODE]
    pairs = sum(output["count"] for output in outputs)
    encoded = {side: sum(output["encoded"][side] for output in outputs) for side in ("images", "captions")}
    return {side: {"encoded": number, "reused": pairs - number} for side, number in encoded.items()}


def removal(view: JobView) -> Json | None:
    """What taking pairs out did; `None` for other tasks."""
    edited = view.output(Phase.EDIT)
    return dict(edited["told"]) if edited is not None else None


def _traced(view: JobView) -> Json:
    """How far the solves for the queries of a traceback went, the worst of them."""
    if not view.outputs[Phase.TRACE]:
        return {}
    solves = [output["solve"] for output in view.outputs[Phase.TRACE] if output["solve"] is not None]
    told: Json = {"spans": view.outputs[Phase.TRACE][0]["spans"]}
    if solves:
        told["iterations"] = max(solve["iterations"] for solve in solves)
        told["relative_residual"] = max(solve["relative_residual"] for solve in solves)
        told["converged"] = all(solve["converged"] for solve in solves)
    return told


_SELF_INFLUENCE = {
    "exact": "exact",
    "projected": "exact inside the projection",
    "probes": "random probes",
    "diagonal": "random probes through the curvature's diagonal",
}


def _self_influence(made: Json) -> Json:
    probes = made["probes"]
    error = probed_relative_standard_error(probes) if probes else 0.0
    return {"method": _SELF_INFLUENCE[made["method"]], "probes": probes, "relative_standard_error": error}


def _without(output: Json, *names: str) -> Json:
    return {name: value for name, value in output.items() if name not in names}


def warnings(view: JobView) -> list[str]:
    """What a careful reader of the result should know."""
    found: list[str] = []
    found += _stationarity(view)
    curvature = methods(view)["curvature"]
    if curvature is not None and not curvature["converged"]:
        found.append(
            f"curvature not inverted to its tolerance: relative residual {curvature['relative_residual']:.2g} "
            f"after {curvature['iterations']} passes; raise influence.damping or objective.l2"
        )
    truncated = truncated_captions(view)
    if truncated:
        found.append(f"{truncated} captions are longer than the model reads and were cut")
    plan, size = view.plan, view.spec.objective.batch_size
    if plan["pairs"] < size:
        found.append(f"batch_size {size} is more than the {plan['pairs']} pairs: one batch holds them all")
    elif plan["pairs"] % size == 1:
        found.append("the last batch holds a single pair: it has no negatives, and its scores are 0")
    if plan["pairs"] == 1:
        found.append("a single pair has no negatives: every score of it is 0")
    if starts_from_nothing(view.spec) and view.spec.fit is None:
        found.append("the model is random and was not fitted: its scores mean nothing")
    if view.dataset.rejected_count:
        found.append(f"{view.dataset.rejected_count} pairs were turned away: see /datasets/{view.dataset.id}/pairs")
    return found


def _stationarity(view: JobView) -> list[str]:
    fitted, curvature = view.output(Phase.FIT), view.output(Phase.CURVATURE)
    if curvature is None or (fitted is not None and fitted["stationary"]):
        return []
    decrement, least = curvature.get("newton_decrement"), ""
    if decrement is None:
        decrement, least = curvature["decrement_bound"], "at most "
    if decrement is not None and decrement < _NOT_STATIONARY:
        return []
    says = f", Newton decrement {least}{decrement:.3g} in units of the summed loss" if decrement is not None else ""
    advice = "raise fit.epochs" if view.spec.fit is not None else "let `fit` minimise the objective first"
    return [
        f"not stationary: gradient norm {curvature['gradient_norm']:.3g}{says}; "
        f"influences describe a model that is not at its minimum; {advice}"
    ]


def phase(report: PhaseReport, pairs: int) -> Json:
    """How long a phase took and how fast it was. A pass or an epoch goes over every pair."""
    handled = report.units * pairs if report.phase in (Phase.FIT, Phase.CURVATURE) else report.units
    return {
        "phase": report.phase,
        "shards": report.shards,
        "seconds": round(report.seconds, 3),
        "pairs": handled,
        "pairs_per_second": round(handled / report.seconds, 1) if report.seconds else None,
    }
