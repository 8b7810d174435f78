"""One setting: ask the service, ask the peers, judge every column."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.detection.cells import Cell, Model, Scale
from benchmarks.detection.columns import NO_CLEAN, NO_FIT, OURS
from benchmarks.detection.judging import judge, outcome_of_flags
from benchmarks.detection.peers_of import peers_of
from benchmarks.detection.setting import Setting
from benchmarks.one_process import Job, OneProcess
from benchmarks.sections import Json

_METHODS = [
    "ecif",
    "clip_score",
    "pair_loss",
    "leave_one_out",
    "contrast_loss",
    "margin",
    "lemon",
    "tracin",
    "trak",
    "ekfac_if",
]
_NOT_SCORES = {"rank", "p_value", "q_value", "label", "width", "height", "query"}


def left_out(model: Model) -> set[str]:
    """Methods that cannot run there."""
    return {"leave_one_out"} if model == "scratch" else set()  # the loss without a pair is had of heads alone


def measure(cell: Cell, scale: Scale, service: OneProcess, pretrained: Path | None) -> Json:
    """All columns of one setting, ours and the peers'. pretrained: the weights of the model, if it has any."""
    begin = perf_counter()
    setting = Setting.of(cell, scale, service, pretrained)
    wrong, reserved = setting.pairs.wrong, setting.pairs.reserved
    methods = [method for method in _METHODS if method not in left_out(cell.model)]
    ours = setting.job(methods=methods, validation={"dataset": setting.clean})
    without = {NO_CLEAN: setting.job(methods=["clip_score"])}
    if cell.model != "scratch":
        without[NO_FIT] = setting.job(methods=["clip_score"], fit=None)
    columns = scores_of(ours)
    columns |= {name: scores_of(job)["suspicion"] for name, job in without.items()}
    columns |= peers_of(setting).scores
    flags = {"suspicion": ours, **without}
    return {
        **cell.as_json(),
        "pairs": len(wrong),
        "reserved": int(reserved.sum()),
        "clean": len(setting.pairs.clean.captions),
        "wrong": float(wrong[~reserved].double().mean()),
        "columns": judge(columns, wrong, reserved, against="suspicion", seed=cell.seed),
        "flags": {name: outcome_of_flags(flagged_by(job), wrong) for name, job in flags.items()},
        "seconds": perf_counter() - begin,
    }


def scores_of(job: Job) -> dict[str, Tensor]:
    """Every score that the rows carry, (n,) float64 by pair, turned so that high is suspicious.

    Raises:
        ValueError: a column of which `OURS` does not say what it means.
    """
    rows = _by_pair(job)
    numbers = {name for row in rows for name, value in row.items() if isinstance(value, float)} - _NOT_SCORES
    if strangers := numbers - set(OURS):
        raise ValueError(f"{sorted(strangers)} are new: name them in OURS")
    return {
        name: sign * torch.tensor([row[name] for row in rows], dtype=torch.float64)
        for name, sign in OURS.items()
        if name in numbers
    }


def flagged_by(job: Job) -> Tensor:
    """(n,) bool by pair."""
    return torch.tensor([bool(row["flagged"]) for row in _by_pair(job)])


def _by_pair(job: Job) -> list[Json]:
    """The rows in the order of the pairs, whose keys are their places, perhaps as names of files."""
    return sorted(job.rows, key=lambda row: int(row["key"].partition(".")[0]))
