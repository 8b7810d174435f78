"""How the phases of a dataset follow each other: index, ingest, join, register."""

from typing import Any

from sqlalchemy.orm import Session

from store import datasets, shards
from store.shards import Planned
from store.states import Phase
from store.tables import Dataset


def advance(session: Session, dataset: Dataset, finished: Phase) -> None:
    """Open the next phase, or end the ingest. Called in the last shard's own transaction; `fetch` opens its own."""
    if finished is Phase.INDEX:
        planned = [Planned(told, told["pairs"]) for told in _output(session, dataset, Phase.INDEX)["shards"]]
        shards.open_phase(session, Phase.INGEST, planned, dataset_id=dataset.id)
    elif finished is Phase.INGEST:
        shards.open_phase(session, Phase.JOIN, [Planned({})], dataset_id=dataset.id)
    elif finished is Phase.JOIN:
        ranges = _output(session, dataset, Phase.JOIN)["ranges"]
        planned = [Planned({"parts": parts}, sum(part["items"] for part in parts)) for parts in ranges]
        shards.open_phase(session, Phase.REGISTER, planned, dataset_id=dataset.id)
    elif finished is Phase.REGISTER:
        _finish(session, dataset)


def _finish(session: Session, dataset: Dataset) -> None:
    joined = _output(session, dataset, Phase.JOIN)
    if not joined["pairs"]:
        reason, rejected = joined["first_reason"], joined["rejected"]
        first = f"; the first of {rejected}: {reason}" if reason else ""
        error = {"code": "no_usable_pair", "message": f"no usable pair is left{first}", "param": "file"}
        datasets.fail_ingest(session, dataset.id, error)
        return
    found = datasets.Ingested(
        format=joined["format"],
        kind=joined["kind"],
        width=joined["width"],
        pair_count=joined["pairs"],
        rejected_count=joined["rejected"],
        warnings=joined["warnings"],
        summary=joined["summary"],
    )
    datasets.finish_ingest(session, dataset.id, found)


def _output(session: Session, dataset: Dataset, phase: Phase) -> dict[str, Any]:
    (output,) = shards.outputs(session, phase, dataset_id=dataset.id)
    return output
