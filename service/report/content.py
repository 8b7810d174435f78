"""What the report of a job says, gathered from its summary, its results and its images."""

from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from service.jobs.succeeded import succeeded
from service.report.figures import Card, Chart, Picture, cards, chart, number, picture, seconds, share, shortened
from service.results import ResultOut
from store import datasets, exports, pairs
from store.blobs import Blobs
from store.database import Database
from store.errors import NotFoundError
from store.tables import SCORES, Dataset, Job, Part

Json = dict[str, Any]

_SHOWN, _LEAST_SUSPICIOUS = 12, 4  # pairs at each end; what is likely right only shows that the order makes sense
_QUERIES, _PAIRS_OF_QUERY = 12, 6
_ON_CARDS = {
    "misalignment": ("suspicion", "q_value", "influence", "clip_score"),
    "valuation": ("influence", "self_influence", "clip_score"),
    "removal": ("influence", "self_influence", "clip_score"),
    "traceback": ("relative_influence",),
}
_GROUPS = 15  # of a table
_GROUPED_BY = {
    "label": "label",
    "length": "words of the caption",
    "language": "language",
    "script": "script of the caption",
}
_NOT_DRAWN = ("q_value",)  # of no shape that tells anything


@dataclass(frozen=True)
class QueryView:
    """One query of a traceback and the pairs most responsible for it."""

    key: str
    true: str
    predicted: str | None
    loss: str
    picture: Picture | None
    pairs: list[Card]


@dataclass(frozen=True)
class Phase:
    """A step and its time; `share` in percent of the longest."""

    name: str
    time: str
    rate: str
    share: float


@dataclass(frozen=True)
class GroupRow:
    """One group; `wrong_share` and `flagged_share` in percent of its pairs, the former None where it is not known."""

    name: str
    pairs: int
    flagged: int
    flagged_share: float
    wrong: str
    wrong_share: float | None


@dataclass(frozen=True)
class GroupTable:
    """The groups of one attribute, the worst first, or in order where they have one."""

    title: str
    rows: list[GroupRow]
    left_out: int


@dataclass
class Report:
    """Everything on the page."""

    job: Job
    dataset: Dataset
    summary: Json
    with_images: bool
    first: list[Card] = field(default_factory=list)
    last: list[Card] = field(default_factory=list)
    queries: list[QueryView] = field(default_factory=list)
    queries_left_out: int = 0
    charts: list[Chart] = field(default_factory=list)
    statement: str = ""
    noise: str = ""
    firmness: str = ""
    warnings: list[str] = field(default_factory=list)
    groups: list[GroupTable] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    time: str = ""


def gather(job_id: str, database: Database, blobs: Blobs) -> Report:
    """The report of a job.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not succeeded.
    """
    with database.transaction() as session:
        job = succeeded(session, job_id)
        dataset = datasets.get_including_deleted(session, job.dataset_id)
        report = Report(job, dataset, job.summary or {}, _shows_images(dataset))
        rows, queries = _rows(session, job, dataset), _queries(session, job)
        report.charts = _charts(session, job)
        better = pairs.at(session, dataset.number, (row.better_position for row in rows))
        parts = _parts(session, dataset)
        query_parts = _query_parts(session, job)
    flagging = report.summary.get("flagging") or {}
    report.statement, report.warnings = _statement(flagging), _warnings(job)
    report.noise = share(flagging["estimated_noise_rate"]) if flagging.get("estimated_noise_rate") else ""
    report.firmness = firmness(job.task, report.summary)
    report.groups = group_tables(report.summary)
    report.phases, report.time = _phases(report.summary)
    # The images are read and made small after the connection is given back.
    captions = {position: pair.caption for position, pair in better.items()}
    shown = cards(rows, _ON_CARDS[job.task], blobs, parts, captions)
    if job.task == "traceback":
        by_rank = {card.rank: card for card in shown}
        report.queries = [
            QueryView(
                key=query["key"],
                true=shortened(query["true"]),
                predicted=shortened(query["predicted"]) if query["predicted"] is not None else None,
                loss=number(query["loss"]),
                picture=picture(blobs, query_parts.get(pair.part), pair)
                if pair is not None and pair.part is not None
                else None,
                pairs=[replace(by_rank[rank], rank=place) for place, rank in enumerate(ranks, start=1)],
            )
            for query, pair, ranks in queries
        ]
        report.queries_left_out = report.summary["counts"]["queries"] - len(queries)
    else:
        report.first = [card for card in shown if card.rank <= _SHOWN]
        report.last = [card for card in shown if card.rank > _SHOWN]
    return report


def _shows_images(dataset: Dataset) -> bool:
    return dataset.kind == "images" and dataset.deleted_at is None


def _parts(session: Session, dataset: Dataset) -> dict[int, Part]:
    return {part.part: part for part in datasets.parts(session, dataset.id)} if _shows_images(dataset) else {}


def _query_parts(session: Session, job: Job) -> dict[int, Part]:
    if job.queries_dataset_id is None:
        return {}
    return _parts(session, datasets.get_including_deleted(session, job.queries_dataset_id))


def _rows(session: Session, job: Job, dataset: Dataset) -> list[exports.Exported]:
    if job.task == "traceback":
        ranks = [rank for _, ranks in _worst_queries(job) for rank in ranks]
    else:
        n = job.result_count
        last = _LEAST_SUSPICIOUS if job.task == "misalignment" else _SHOWN
        ranks = [*range(1, min(_SHOWN, n) + 1), *range(max(n - last, _SHOWN) + 1, n + 1)]
    return list(exports.at_ranks(session, job.number, dataset.number, ranks))


def _worst_queries(job: Job) -> list[tuple[Json, range]]:
    """The queries that went worst, and the ranks of the pairs most responsible: each query has as many."""
    summary = job.summary or {}
    top = job.result_count // max(summary["counts"]["queries"], 1)
    queries = enumerate(summary["queries"])
    worst = sorted(queries, key=lambda numbered: -numbered[1]["loss"])[:_QUERIES]
    return [(query, range(n * top + 1, n * top + min(top, _PAIRS_OF_QUERY) + 1)) for n, query in worst]


def _queries(session: Session, job: Job) -> list[tuple[Json, Any, range]]:
    if job.task != "traceback" or job.queries_dataset_id is None:
        return []
    number_ = datasets.number(session, job.queries_dataset_id)
    queries = []
    for query, ranks in _worst_queries(job):
        try:
            pair = pairs.by_key(session, number_, query["key"])
        except NotFoundError:
            pair = None
        queries.append((query, pair, ranks))
    return queries


def _charts(session: Session, job: Job) -> list[Chart]:
    described: Json = (job.summary or {}).get("scores") or {}
    leading = _ON_CARDS[job.task]
    order = [name for name in dict.fromkeys((*leading, *SCORES)) if name in described and name not in _NOT_DRAWN]
    drawn = []
    for name in order:
        flagged = None
        if job.flagged_count:
            edges = described[name]["histogram"]["edges"]
            flagged = exports.flagged_histogram(session, job.number, name, edges)
        about = (ResultOut.model_fields[name].description or "").replace("`", "")
        drawn.append(chart(name, about, described[name], flagged))
    return [each for each in drawn if each is not None]


def _statement(flagging: Json) -> str:
    """What the flags are worth, where they were calibrated; where not, a warning of the job says so."""
    if flagging.get("method") != "conformal":
        return ""
    rate, clean = share(flagging["false_discovery_rate"]), flagging["calibration_pairs"]
    confidence = flagging.get("confidence")
    if confidence is None:  # of a release that held the mean over many runs
        return f"Of the flagged pairs, at most {rate} are expected to be right, judged by {clean:,} clean ones."
    return (
        f"Of the flagged pairs, at most {rate} are right ones, with a confidence of {share(confidence)}: judged "
        f"by {clean:,} clean pairs that took part as calibration{_within(flagging)}."
    )


_RANKED_BY = {"misalignment": "suspicion", "valuation": "influence"}
_DRAWN_AGAIN = {"exchanges": "with other captions exchanged", "partitions": "in other batches"}
_FIRST = 0.05


def firmness(task: str, summary: Json) -> str:
    """How much of the top of the ranking another draw would have kept; nothing where that was not measured."""
    firm = (summary.get("stability") or {}).get(_RANKED_BY.get(task, ""))
    if not isinstance(firm, dict):  # a release before told one number
        return ""
    overlap = share(firm["top_overlap"][f"{_FIRST:g}"])
    return (
        f"How firm the order is: computed again {_DRAWN_AGAIN[firm['over']]}, the first {share(_FIRST)} of the pairs "
        f"keep {overlap} of their members (rank correlation of all {firm['rank_correlation']:.2f})."
    )


def _within(flagging: Json) -> str:
    by = flagging.get("by")
    return f", each group by {by} by its own, so that this holds in each of them" if by else ""


def _warnings(job: Job) -> list[str]:
    summary: Json = job.summary or {}
    messages = list(summary.get("warnings") or [])
    held_out = (summary.get("counts") or {}).get("held_out")
    if held_out:
        messages.append(f"{held_out:,} pairs were held out for validation: they have no score, and are in no export")
    return messages


def group_tables(summary: Json) -> list[GroupTable]:
    """What a summary says of groups; a release before said nothing of them."""
    tables = []
    groups: Json = summary.get("groups") or {}
    for name, title in _GROUPED_BY.items():
        rows = groups.get(name) or []
        if len(rows) < 2:
            continue
        if name != "length":  # which has an order of its own
            rows = sorted(rows, key=lambda row: -(row["estimated_noise_rate"] or row["flagged_rate"]))
        shown = [
            GroupRow(
                name="the rest" if row["group"] is None else row["group"],
                pairs=row["pairs"],
                flagged=row["flagged"],
                flagged_share=round(100 * row["flagged_rate"], 1),
                wrong=share(row["estimated_noise_rate"]) if row["estimated_noise_rate"] is not None else "–",
                wrong_share=_percent(row["estimated_noise_rate"]),
            )
            for row in rows[:_GROUPS]
        ]
        tables.append(GroupTable(title, shown, len(rows) - len(shown)))
    return tables


def _percent(rate: float | None) -> float | None:
    return None if rate is None else round(100 * rate, 1)


def _phases(summary: Json) -> tuple[list[Phase], str]:
    timed = summary.get("phases") or []
    longest = max((phase["seconds"] for phase in timed), default=0) or 1
    phases = [
        Phase(
            name=phase["phase"],
            time=seconds(phase["seconds"]),
            rate=f"{phase['pairs_per_second']:,.0f}" if phase["pairs_per_second"] else "",
            share=round(100 * phase["seconds"] / longest, 1),
        )
        for phase in timed
    ]
    return phases, seconds(sum(phase["seconds"] for phase in timed))
