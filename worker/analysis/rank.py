"""Rank: gather every shard's scores, decide the order and what to flag, and describe what was found."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif import benjamini_hochberg, calibration_warning, conformal_p_values, estimate_noise_rate, fuse_ranks
from store import jobs, pairs, results
from store.blobs import Blobs
from store.shards import Planned
from worker.analysis import summary
from worker.analysis.baselines import METHODS
from worker.analysis.fit import look_weight
from worker.analysis.job_view import JobView
from worker.analysis.models import starts_from_nothing
from worker.analysis.roster import Roster
from worker.analysis.summary import describe
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BaselinesOutput, FitOutput, Json, PlanOutput, RankOutput, ScoreOutput, TraceOutput
from worker.pipeline import Planning

_ROLES = ("positive_influence", "negative_influence")
_LISTED_QUERIES = 1000
_COLUMNS_OF = {
    "ecif": ("influence", *_ROLES, "self_influence"),
    "clip_score": ("clip_score",),
    "pair_loss": ("pair_loss",),
    **{method: (method,) for method in METHODS},
}


def cut(planning: Planning) -> list[Planned]:
    """One shard: an order is of all pairs."""
    # A traceback has one too: it gathers what the shards of all queries have left.
    return [Planned({}, planning.output(PlanOutput).pairs)]


def run(task: Task) -> Done[RankOutput]:
    """Order and flag the pairs of a job."""
    view = JobView.of(task)
    roster = Roster.load(task.blobs, view.plan.roster)
    if view.spec.task == "traceback":
        return _traced(task, view, roster)
    scores = gather(task.blobs, view, roster)
    ranking = order(view, roster, scores)
    position = _positions(task, view)[roster.row[: roster.scored]]
    columns = {name: values[: roster.scored] for name, values in ranking.columns.items()}
    sequence = torch.argsort(ranking.key[: roster.scored], stable=True)
    ranked = {name: values[sequence] for name, values in columns.items()} | {"position": position[sequence]}
    flagged = int(columns["flagged"].sum()) if "flagged" in columns else None
    output = RankOutput(
        ranked=put_tensors(task.blobs, task.blob_name("ranked.safetensors"), ranked),
        results=roster.scored,
        flagged=flagged,
        summary={
            "counts": summary.counts(view, flagged),
            "ranked_by": ranking.ranked_by,
            "flagging": ranking.flagging,
            "scores": {name: describe(values) for name, values in columns.items() if name != "flagged"},
            **summary.methods(view),
            "removal": summary.removal(view),
            "warnings": summary.warnings(view) + ranking.warnings,
        },
    )
    return Done(output, roster.n_pairs, _room(task, roster.scored))


def _room(task: Task, count: int) -> Callable[[Session], None]:
    """What makes room for that many results, in the transaction in which the job goes on to load them."""

    def write(session: Session) -> None:
        results.make_room(
            session, jobs.get_including_deleted(session, task.claim.owner.id), count, task.settings.ecif_results_apart
        )

    return write


def _traced(task: Task, view: JobView, roster: Roster) -> Done[RankOutput]:
    """The rows of a traceback: for each query in turn the pairs most responsible for it."""
    position = _positions(task, view)[roster.row[: roster.scored]]
    traced = [get_tensors(task.blobs, output.traced) for output in view.outputs(TraceOutput)]
    queries = [query for output in view.outputs(TraceOutput) for query in output.queries]
    places = torch.cat([content.pop("places") for content in traced])  # (q, top)
    columns = {name: torch.cat([content[name] for content in traced]).flatten() for name in traced[0]}
    ranked = {
        **columns,
        "position": position[places.flatten()],
        "query": torch.arange(len(queries)).repeat_interleave(places.shape[1]),
    }
    output = RankOutput(
        ranked=put_tensors(task.blobs, task.blob_name("ranked.safetensors"), ranked),
        queries=[query["key"] for query in queries],
        results=places.numel(),
        flagged=None,
        summary={
            "counts": summary.counts(view, None) | {"queries": len(queries)},
            "ranked_by": "query, then relative_influence, most responsible first",
            "queries": queries[:_LISTED_QUERIES],
            "scores": {name: describe(values) for name, values in columns.items()},
            **summary.methods(view),
            "warnings": summary.warnings(view),
        },
    )
    return Done(output, roster.n_pairs, _room(task, places.numel()))


def gather(blobs: Blobs, view: JobView, roster: Roster) -> dict[str, Tensor]:
    """Every score of every training pair, (N,) float64, averaged over the partitions in a fixed order."""
    columns: dict[str, Tensor] = {}
    for output in view.outputs(ScoreOutput):
        content = get_tensors(blobs, output.scores)
        places = content.pop("places")
        for name, values in content.items():
            columns.setdefault(name, torch.zeros(roster.n_pairs, dtype=torch.float64))[places] += values
    scores = {name: values / len(roster.partitions) for name, values in columns.items()}
    if _ROLES[0] in scores:
        scores["influence"] = scores[_ROLES[0]] + scores[_ROLES[1]]
    baselines = view.output(BaselinesOutput)
    if baselines is not None and "lemon" in baselines.methods:
        scores["lemon"] = get_tensors(blobs, baselines.prepared)["lemon"]
    fitted = view.output(FitOutput)
    if fitted is not None and fitted.last_look:
        watched, weight = get_tensors(blobs, fitted.losses)["mean"], fitted.look_weight
        end = look_weight(view.spec, fitted.last_look, fitted.epochs)
        scores["watched_loss"] = (watched * weight + scores["pair_loss"] * end) / (weight + end)
    return scores


@dataclass(frozen=True)
class Ranking:
    """The columns that results carry, (N,) each; `key` (N,) ascends from the first to look at."""

    columns: dict[str, Tensor]
    key: Tensor
    ranked_by: str
    flagging: Json | None
    warnings: list[str]


def order(view: JobView, roster: Roster, scores: dict[str, Tensor]) -> Ranking:
    """Which pair comes first, and which are flagged."""
    requested = {name for method in view.spec.methods for name in _COLUMNS_OF[method]}
    columns = {name: values for name, values in scores.items() if name in requested}
    if view.spec.task == "valuation":
        return Ranking(columns, scores["influence"], "influence, most harmful first", None, [])
    if view.spec.task == "removal":
        return Ranking(columns, *_of_removal(columns, scores), None, [])
    parts = {"pair_loss averaged over the epochs" if "watched_loss" in scores else "pair_loss": _loss(scores)}
    if not starts_from_nothing(view.spec):
        parts["clip_score of the model as given"] = -scores["clip_score"]
    suspicion = fuse_ranks(list(parts.values()))
    columns["suspicion"] = suspicion
    flagging, warnings = _flag(view, roster, columns, scores["clip_score"])
    ranked_by = "suspicion: rank of " + " and ".join(parts)
    return Ranking(columns, -suspicion, ranked_by, flagging, warnings)


def _of_removal(columns: dict[str, Tensor], scores: dict[str, Tensor]) -> tuple[Tensor, str]:
    if "influence" in scores:
        return scores["influence"], "influence, most harmful first"
    if "self_influence" in columns:
        return -columns["self_influence"], "self_influence, strongest first"
    return scores["clip_score"], "clip_score, lowest first"


def _loss(scores: dict[str, Tensor]) -> Tensor:
    return scores["watched_loss"] if "watched_loss" in scores else scores["pair_loss"]


def _flag(view: JobView, roster: Roster, columns: dict[str, Tensor], cosine: Tensor) -> tuple[Json, list[str]]:
    suspicion, n = columns["suspicion"], roster.scored
    rate = view.spec.flag.false_discovery_rate
    m = roster.n_pairs - n
    if view.clean_set and m:
        p = conformal_p_values(suspicion[:n], suspicion[n:])
        discoveries = benjamini_hochberg(p, rate)
        columns["p_value"], columns["q_value"] = p, discoveries.q_value
        columns["flagged"] = discoveries.flagged
        flagging: Json = {"method": "conformal", "false_discovery_rate": rate, "calibration_pairs": m}
        warning = None if bool(discoveries.flagged.any()) else calibration_warning(m, n, rate)
        return flagging, [warning] if warning else []
    # Cosines of right and of wrong pairs are near normal, where losses are not: their mixture tells how many are
    # wrong, and the suspicion which.
    estimate = estimate_noise_rate(-cosine[:n])
    count = estimate.count_at(rate)
    flagged = torch.zeros(n, dtype=torch.bool)
    flagged[torch.argsort(suspicion[:n], descending=True, stable=True)[:count]] = True
    columns["flagged"] = flagged
    seen = (
        f"{estimate.rate:.0%} of the pairs look wrong" if estimate.rate else "no separate group of wrong pairs is seen"
    )
    reason = (
        f"no clean validation set, so no p-values and no promise: by an estimate only, {seen}, and {count} of {n} "
        "are flagged; name a validation dataset that you trust to have the false discovery rate controlled"
    )
    flagging = {"method": "estimate", "estimated_noise_rate": estimate.rate, "false_discovery_rate": rate}
    return flagging, [reason]


def _positions(task: Task, view: JobView) -> Tensor:
    """Where each accepted row of the dataset stood in the upload, (rows,) int64."""
    if not view.dataset.rejected_count:
        return torch.arange(view.dataset.pair_count)
    with task.database.transaction() as session:
        return torch.tensor(pairs.accepted_positions(session, view.dataset.number), dtype=torch.int64)
