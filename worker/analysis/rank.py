"""Rank: gather every shard's scores, decide the order and what to flag, and describe what was found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from ecif.detection.flags import Flags, flag_against_clean, flag_by_estimate
from ecif.detection.flags_by_group import GroupFlags, flag_by_group
from ecif.detection.grouping import Grouping
from ecif.detection.suspicion import Ranking, rank_by_influence, rank_by_suspicion, rank_for_removal
from ecif.self_influence import averaged_self_influence
from store import jobs, pairs, results
from store.blobs import Blobs
from store.job_phases import COLUMNS_OF, OF_ALL_PAIRS
from store.shards import Planned
from store.specification import Grouping as Grouped
from store.summaries import Flagging, GroupRates, Ranked, Suspicion
from worker.analysis import groups, stability, summary
from worker.analysis.embedding_map import put_map
from worker.analysis.job_view import JobView
from worker.analysis.models import starts_from_nothing
from worker.analysis.roster import Roster
from worker.analysis.summary import describe
from worker.analysis.tensors import get_tensors, put_tensors
from worker.attempts.task import Done, Task
from worker.outputs import BaselinesOutput, DetectOutput, PlanOutput, RankOutput, ScoreOutput, TraceOutput
from worker.pipeline import Planning

_ROLES = ("positive_influence", "negative_influence")
_LISTED_QUERIES = 1000


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
    grouped = groups.groupings(task, view, roster) if view.spec.task == "misalignment" else {}
    decision = decide(task.blobs, view, roster, scores, grouped)
    position = _positions(task, view)[roster.row[: roster.scored]]
    columns = {name: values[: roster.scored] for name, values in decision.columns.items()}
    sequence = decision.ranking.order(roster.scored)
    ranked = {name: values[sequence] for name, values in columns.items()} | {"position": position[sequence]}
    for name, values in decision.why.items():
        of_rows = values[: roster.scored][sequence]
        if name in ("better", "exchanged"):  # places, told as positions
            ranked[f"{name}_position"] = torch.where(of_rows >= 0, position[of_rows.clamp(min=0)], -1)
        else:
            ranked[name] = of_rows
    flagged = int(columns["flagged"].sum()) if "flagged" in columns else None
    if "flagged" in columns:
        put_map(task.blobs, view, roster, sequence, columns["suspicion"], columns["flagged"])
    scores_in_results = {name: describe(values) for name, values in columns.items() if name != "flagged"}
    report = summary.ranked(view, summary.counts(view, flagged), decision.ranked_by, scores_in_results)
    report["warnings"] += decision.warnings
    report["flagging"] = decision.flagging
    report["removal"] = summary.removal(view)
    report["stability"] = stability.of_columns(task.blobs, view, roster, columns)
    _tell_what_was_learned(decision, report)
    output = RankOutput(
        ranked=put_tensors(task.blobs, task.blob_name("ranked.safetensors"), ranked),
        results=roster.scored,
        flagged=flagged,
        columns=decision.detected.columns if decision.detected is not None else [],
        summary=dict(report),
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
    report = summary.ranked(
        view,
        {**summary.counts(view, None), "queries": len(queries)},
        "query, then relative_influence, most responsible first",
        {name: describe(values) for name, values in columns.items()},
    )
    report["queries"] = queries[:_LISTED_QUERIES]
    output = RankOutput(
        ranked=put_tensors(task.blobs, task.blob_name("ranked.safetensors"), ranked),
        queries=[query["key"] for query in queries],
        results=places.numel(),
        flagged=None,
        summary=dict(report),
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
    return scores


_RANKED_BY = {
    "influence": "influence, most harmful first",
    "self_influence": "self_influence, strongest first",
    "clip_score": "clip_score, lowest first",
}


@dataclass(frozen=True)
class Decision:
    """Which pair comes first and which are flagged; `columns` (N,) each are those that results carry. groups: in the
    summary."""

    columns: dict[str, Tensor]
    ranking: Ranking
    ranked_by: str
    flagging: Flagging | None = None
    warnings: list[str] = field(default_factory=list)
    why: dict[str, Tensor] = field(default_factory=dict)
    detected: DetectOutput | None = None
    groups: dict[str, list[GroupRates] | None] | None = None


def decide(
    blobs: Blobs, view: JobView, roster: Roster, scores: dict[str, Tensor], grouped: Mapping[Grouped, Grouping]
) -> Decision:
    """Order the pairs by what the task asks for, and flag those of `misalignment`."""
    requested = {name for method in view.spec.methods for name in COLUMNS_OF[method]}
    columns = {name: values for name, values in scores.items() if name in requested}
    if view.spec.task == "misalignment":
        return _by_suspicion(blobs, view, roster, columns, grouped)
    if view.spec.task == "valuation":
        ranking = rank_by_influence(scores["influence"])
    else:
        ranking = rank_for_removal(
            columns | {name: scores[name] for name in ("influence", "clip_score") if name in scores}
        )
    return Decision(columns, ranking, _RANKED_BY[ranking.by])


def _by_suspicion(
    blobs: Blobs,
    view: JobView,
    roster: Roster,
    columns: dict[str, Tensor],
    grouped: Mapping[Grouped, Grouping],
) -> Decision:
    detected = view.output(DetectOutput)
    assert detected is not None  # noqa: S101  every job of this task has learned it
    learned, n = get_tensors(blobs, detected.detected), roster.scored
    columns["suspicion"] = learned["suspicion"]
    # A model that was trained on these very pairs knows the wrong ones among them, and those that are injected not.
    injected = None if starts_from_nothing(view.spec) else learned["injected"]
    flags, within, says = _flag(view, detected, learned["suspicion"], n, injected, grouped)
    columns |= {"flagged": flags.flagged, "q_value": flags.q_value}
    if flags.p_value is not None:
        columns["p_value"] = flags.p_value
    report: Flagging = {
        "method": flags.method,
        "false_discovery_rate": view.spec.flag.false_discovery_rate,
        "confidence": view.spec.flag.confidence if flags.method == "conformal" else None,
        "by": within[0] if within is not None else None,
        "calibration_pairs": flags.calibration_pairs,
        "estimated_noise_rate": flags.noise_rate,
    }
    if detected.reason is not None:
        says = [f"suspicion was not learned: {detected.reason}; its columns weigh the same", *says]
    why = _why(roster, learned)
    rates = groups.rates(
        grouped, flags, learned["suspicion"][:n], injected, view.spec.flag.false_discovery_rate, within
    )
    ranking = rank_by_suspicion(learned["suspicion"])
    return Decision(columns, ranking, _ranked_by(detected), report, says, why, detected, rates)


def _ranked_by(detected: DetectOutput) -> str:
    """The columns that make up most of it, in words."""
    weights: dict[str, float] = detected.report["weights"]
    whole = sum(weights.values()) or 1.0
    leading = sorted(weights, key=lambda name: -weights[name])[:3]
    return "suspicion: " + "; ".join(f"{name} ({weights[name] / whole:.0%})" for name in leading)


def _flag(
    view: JobView,
    detected: DetectOutput,
    suspicion: Tensor,
    n: int,
    injected: Tensor | None,
    grouped: Mapping[Grouped, Grouping],
) -> tuple[Flags, tuple[Grouped, GroupFlags] | None, list[str]]:
    """Which pairs to drop; within which groups, where it was by group; and what to be told of it."""
    flag, scored, calibration = view.spec.flag, suspicion[:n], suspicion[n:]
    calibrates = view.clean_set and len(calibration) > 0 and detected.unlike is None
    if calibrates and flag.by is not None:
        grouping = grouped[flag.by]
        within = flag_by_group(
            scored,
            calibration,
            grouping.of[:n],
            grouping.of[n:],
            len(grouping.names),
            flag.false_discovery_rate,
            confidence=flag.confidence,
            injected=injected,
        )
        return within.flags, (flag.by, within), groups.warnings(flag.by, grouping, within, n)
    if calibrates:
        flags = flag_against_clean(
            scored, calibration, flag.false_discovery_rate, confidence=flag.confidence, injected=injected
        )
        return flags, None, [flags.warning] if flags.warning else []
    flags = flag_by_estimate(scored, flag.false_discovery_rate, injected=injected)
    if detected.unlike is not None:
        reason = (
            f"the clean set is unlike the data (a classifier tells them apart with an AUROC of {detected.unlike:.2f}), "
            "so that it cannot calibrate: flags are an estimate and promise nothing; take the clean pairs from the data"
        )
    else:
        reason = (
            f"no clean validation set, so flags are an estimate and promise nothing: {flags.count} of {len(scored)} "
            "pairs; name a validation dataset that you trust to have the false discovery rate held"
        )
    return flags, None, [reason, *([flags.warning] if flags.warning else [])]


def _why(roster: Roster, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a row says beside its suspicion, (N, ...) each; a pair of the clean set is none that a row can name."""
    n = roster.scored
    return {
        "why": learned["why"],
        "contribution": learned["contribution"],
        **{name: torch.where(learned[name] < n, learned[name], -1) for name in ("better", "exchanged")},
    }


def _tell_what_was_learned(decision: Decision, report: Ranked) -> None:
    """Add `suspicion`: what it is made of, and to `stability` how far its draws agree; and `groups`."""
    if decision.groups is not None:
        report["groups"] = decision.groups
    if decision.detected is not None:
        learned = dict(decision.detected.report)
        report["stability"]["suspicion"] = learned.pop("stability")
        report["suspicion"] = cast("Suspicion", learned)


def _positions(task: Task, view: JobView) -> Tensor:
    """Where each accepted row of the dataset stood in the upload, (rows,) int64."""
    if not view.dataset.rejected_count:
        return torch.arange(view.dataset.pair_count)
    with task.database.transaction() as session:
        return torch.tensor(pairs.accepted_positions(session, view.dataset.number), dtype=torch.int64)
