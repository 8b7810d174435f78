"""What a column costs: a job that has it alone, and a peer alone, against the CLIP score of the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.detection.cells import Cell, Model, Scale
from benchmarks.detection.columns import NO_FIT
from benchmarks.detection.peers_of import peers_of
from benchmarks.detection.setting import Setting
from benchmarks.detection.training import new_model
from benchmarks.one_process import Job, OneProcess
from benchmarks.sections import Json

_NOT_OF_A_COLUMN: Final = ("encode", "load")
_ALONE: Final[dict[str, Json]] = {
    "clip_score": {"methods": ["clip_score"], "fit": None},
    "lemon": {"methods": ["lemon"], "fit": None},
    NO_FIT: {"methods": ["clip_score"], "fit": None},
    "suspicion": {"methods": ["clip_score"]},
    "pair_loss": {"methods": ["pair_loss"]},
    "influence, self_influence": {"methods": ["ecif"], "validation": True},
    "tracin": {"methods": ["tracin"], "validation": True},
    "trak": {"methods": ["trak"], "validation": True},
    "ekfac_if": {"methods": ["ekfac_if"], "validation": True},
}
"""What a job must be asked for to have a column."""


def costs(kind: str, model: Model, scale: Scale, service: OneProcess, pretrained: Path | None) -> Json:
    """`seconds`, `ratio` (to the CLIP score's job) and `memory_mib` (above the process at rest) of every column.

    Encoding is counted with every column, as a job would have to do it that has none of the features yet. Of a model
    from random weights every column but the peers' own needs the training, the CLIP score too.
    """
    setting = Setting.of(Cell(kind, "shuffled", 0.2, model, 0), scale, service, pretrained)
    new_model(scale.architecture, 0)  # what is imported once is no column's cost
    # The first job reads the dataset and encodes; the features are there for those that follow. Embeddings need none.
    encoding = setting.job(**_specification("clip_score", setting)).worked.seconds.get("encode", 0.0)
    rows = {
        name: _of(setting.job(**_specification(name, setting)), encoding)
        for name in _ALONE
        if not (model == "scratch" and name == NO_FIT)
    }
    peers = peers_of(setting)
    return {
        "kind": kind,
        "model": model,
        "pairs": len(setting.pairs.wrong),
        "columns": _ratios(rows, rows["clip_score"]["seconds"]),
        "peers": _ratios(peers.costs, peers.costs["CLIP score"]["seconds"]),
    }


def _specification(name: str, setting: Setting) -> Json:
    given: Json = dict(_ALONE[name])
    if given.pop("validation", False):
        given["validation"] = {"dataset": setting.clean}
    if setting.cell.model == "scratch":
        given.pop("fit", None)  # without the training the model knows nothing
    return given


def _ratios(rows: dict[str, Json], baseline: float) -> dict[str, Json]:
    return {name: {**row, "ratio": row["seconds"] / baseline} for name, row in rows.items()}


def _of(job: Job, encoding: float) -> Json:
    seconds = sum(value for phase, value in job.worked.seconds.items() if phase not in _NOT_OF_A_COLUMN) + encoding
    return {"seconds": seconds, "memory_mib": max(job.worked.peak_mib.values()) - job.worked.at_rest_mib}
