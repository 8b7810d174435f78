"""Rank: gather every shard's scores, decide the order and what to flag, and describe what was found."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif.detection.flags import flag_against_clean, flag_by_estimate
from ecif.detection.suspicion import Ranking, rank_by_influence, rank_by_suspicion, rank_for_removal, suspicion
from ecif.fit.watching import look_weight, mean_with_end
from ecif.self_influence import averaged_self_influence
from store import jobs, pairs, results
from store.blobs import Blobs
from store.job_phases import BASELINES, OF_ALL_PAIRS
from store.shards import Planned
from worker.analysis import summary
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
    "leave_one_out": ("leave_one_out",),
    **{method: (method,) for method in BASELINES},
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
    decision = decide(view, roster, scores)
    position = _positions(task, view)[roster.row[: roster.scored]]
    columns = {name: values[: roster.scored] for name, values in decision.columns.items()}
    sequence = decision.ranking.order(roster.scored)
    ranked = {name: values[sequence] for name, values in columns.items()} | {"position": position[sequence]}
    flagged = int(columns["flagged"].sum()) if "flagged" in columns else None
    output = RankOutput(
        ranked=put_tensors(task.blobs, task.blob_name("ranked.safetensors"), ranked),
        results=roster.scored,
        flagged=flagged,
        summary={
            "counts": summary.counts(view, flagged),
            "ranked_by": decision.ranked_by,
            "flagging": decision.flagging,
            "scores": {name: describe(values) for name, values in columns.items() if name != "flagged"},
            **summary.methods(view),
            "removal": summary.removal(view),
            "warnings": summary.warnings(view) + decision.warnings,
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
            empty = torch.zeros(roster.n_pairs, *values.shape[1:], dtype=torch.float64)
            columns.setdefault(name, empty)[places] += values
    # Self-influence is a square: it is of the average already, or made of it.
    scores = {
        name: values if name == "self_influence" else values / len(roster.partitions)
        for name, values in columns.items()
    }
    if "along_probes" in scores:
        scores["self_influence"] = averaged_self_influence(
            scores.pop("along_probes"), scores.pop("along_partners", None)
        )
    if _ROLES[0] in scores:
        scores["influence"] = scores[_ROLES[0]] + scores[_ROLES[1]]
    baselines = view.output(BaselinesOutput)
    against_all = [name for name in OF_ALL_PAIRS if baselines is not None and name in baselines.methods]
    if baselines is not None and against_all:
        prepared = get_tensors(blobs, baselines.prepared)
        scores |= {name: prepared[name] for name in against_all}
    fitted = view.output(FitOutput)
    if fitted is not None and fitted.last_look:
        watched, weight = get_tensors(blobs, fitted.losses)["mean"], fitted.look_weight
        end = look_weight(fitted.last_look, fitted.epochs, random_start=starts_from_nothing(view.spec))
        scores["watched_loss"] = mean_with_end(watched, weight, scores["pair_loss"], end)
    return scores


_RANKED_BY = {
    "influence": "influence, most harmful first",
    "self_influence": "self_influence, strongest first",
    "clip_score": "clip_score, lowest first",
}


@dataclass(frozen=True)
class Decision:
    """Which pair comes first and which are flagged; `columns` (N,) each are those that results carry."""

    columns: dict[str, Tensor]
    ranking: Ranking
    ranked_by: str
    flagging: Json | None = None
    warnings: list[str] = field(default_factory=list)


def decide(view: JobView, roster: Roster, scores: dict[str, Tensor]) -> Decision:
    """Order the pairs by what the task asks for, and flag those of `misalignment`."""
    requested = {name for method in view.spec.methods for name in _COLUMNS_OF[method]}
    columns = {name: values for name, values in scores.items() if name in requested}
    if view.spec.task == "misalignment":
        return _by_suspicion(view, roster, scores, columns)
    if view.spec.task == "valuation":
        ranking = rank_by_influence(scores["influence"])
    else:
        ranking = rank_for_removal(
            columns | {name: scores[name] for name in ("influence", "clip_score") if name in scores}
        )
    return Decision(columns, ranking, _RANKED_BY[ranking.by])


def _by_suspicion(view: JobView, roster: Roster, scores: dict[str, Tensor], columns: dict[str, Tensor]) -> Decision:
    loss, parts = scores["pair_loss"], ["pair_loss"]
    if "watched_loss" in scores:
        loss, parts = scores["watched_loss"], ["pair_loss averaged over the epochs"]
    cosine = None if starts_from_nothing(view.spec) else scores["clip_score"]
    if cosine is not None:
        parts.append("clip_score of the model as given")
    columns["suspicion"] = suspicion(loss, cosine)
    flagging, warnings = _flag(view, roster, columns, scores["clip_score"])
    ranked_by = "suspicion: rank of " + " and ".join(parts)
    return Decision(columns, rank_by_suspicion(columns["suspicion"]), ranked_by, flagging, warnings)


def _flag(view: JobView, roster: Roster, columns: dict[str, Tensor], cosine: Tensor) -> tuple[Json, list[str]]:
    """Add the columns of the flags, and say how they were had and what to be warned of."""
    rate, n = view.spec.flag.false_discovery_rate, roster.scored
    scored, calibration = columns["suspicion"][:n], columns["suspicion"][n:]
    if view.clean_set and len(calibration):
        flags = flag_against_clean(scored, calibration, rate)
        assert flags.p_value is not None  # noqa: S101  there is one against clean pairs
        assert flags.q_value is not None  # noqa: S101
        columns |= {"p_value": flags.p_value, "q_value": flags.q_value, "flagged": flags.flagged}
        report: Json = {
            "method": flags.method,
            "false_discovery_rate": rate,
            "calibration_pairs": flags.calibration_pairs,
        }
        return report, [flags.warning] if flags.warning else []
    flags = flag_by_estimate(scored, cosine[:n], rate)
    columns["flagged"] = flags.flagged
    noise, count = flags.noise_rate, flags.count
    seen = f"{noise:.0%} of the pairs look wrong" if noise else "no separate group of wrong pairs is seen"
    reason = (
        f"no clean validation set, so no p-values and no promise: by an estimate only, {seen}, and {count} of {n} "
        "are flagged; name a validation dataset that you trust to have the false discovery rate controlled"
    )
    return {"method": flags.method, "estimated_noise_rate": noise, "false_discovery_rate": rate}, [reason]


def _positions(task: Task, view: JobView) -> Tensor:
    """Where each accepted row of the dataset stood in the upload, (rows,) int64."""
    if not view.dataset.rejected_count:
        return torch.arange(view.dataset.pair_count)
    with task.database.transaction() as session:
        return torch.tensor(pairs.accepted_positions(session, view.dataset.number), dtype=torch.int64)
