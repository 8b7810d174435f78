"""Which pairs of a job stand together by label, length, language or script: what rates are told for, and what flags may
be calibrated within."""

import json
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ecif.detection.flags import Flags, no_less_than_flagged
from ecif.detection.flags_by_group import GroupFlags
from ecif.detection.group_rates import wrong_by_group
from ecif.detection.grouping import LEAST, Grouping, by_length, by_value, script_of
from ecif.detection.noise_rate import estimate_noise_rate
from store import pairs
from store.errors import InvalidError
from store.specification import Grouping as Name
from store.summaries import GroupRates
from worker.analysis.job_view import JobView
from worker.analysis.roster import DATASET, VALIDATION, Roster
from worker.attempts.task import Task

NAMES: tuple[Name, ...] = get_args(Name)

_COLUMNS = {"label": ("label",), "language": ("language", "LANGUAGE")}  # the latter as LAION names it
_READ = ("label", "language", "LANGUAGE")
_ROWS_A_LOOK = 10_000
_LISTED = 5
_REST = "the rest"


def check(task: Task, view: JobView, by: Name | None) -> None:
    """Whether pairs and clean pairs have what flags are to be calibrated by.

    Raises:
        InvalidError: no pair of one of the datasets has it.
    """
    if by is None:
        return
    columns = _COLUMNS.get(by, ("caption",))
    with task.database.transaction() as session:
        for dataset, what in ((view.dataset, "dataset"), (view.validation, "validation dataset")):
            if dataset is not None and not any(pairs.have(session, dataset.number, column) for column in columns):
                reason = f"flag.by is {by}, and no pair of the {what} has a {columns[0]}"
                raise InvalidError("no_groups", reason, "flag.by")


def groupings(task: Task, view: JobView, roster: Roster, names: tuple[Name, ...] = NAMES) -> dict[Name, Grouping]:
    """Of all training pairs, by place; those of the clean set are grouped with the others."""
    known: dict[Name, dict[str, int]] = {name: {} for name in names}
    sources = [view.dataset, *([view.validation] if view.validation is not None else [])]
    with task.database.transaction() as session:
        numbers = [
            _numbered(task, pairs.accepted_columns(session, each.number, _READ), known)
            if pairs.are_described(session, each.number)
            else {name: torch.full((each.pair_count,), -1) for name in names}
            for each in sources
        ]
    grouped: dict[Name, Grouping] = {}
    for name in names:
        of = torch.empty_like(roster.row)
        for source, of_source in zip((DATASET, VALIDATION), numbers, strict=False):
            mine = roster.source == source
            of[mine] = of_source[name][roster.row[mine]]
        grouped[name] = by_length(of) if name == "length" else by_value(list(known[name]), of)
    return grouped


def _numbered(task: Task, rows: Iterable[Any], known: dict[Name, dict[str, int]]) -> dict[Name, Tensor]:
    """Of each row the number of its value among the known ones, which grow; of a length the words; −1 is none."""
    columns = {name: array("q") for name in known}
    for count, (caption, label, *languages) in enumerate(rows):
        if count % _ROWS_A_LOOK == 0:
            task.lease.check()
        for name, values in known.items():
            if name == "length":
                number = -1 if caption is None else len(caption.split())
            else:
                if name == "script":
                    value = None if caption is None else script_of(caption)
                else:
                    value = next(filter(None, map(_text, [label] if name == "label" else languages)), None)
                number = -1 if value is None else values.setdefault(value, len(values))
            columns[name].append(number)
    return {name: torch.from_numpy(np.array(of, dtype=np.int64)) for name, of in columns.items()}


def _text(value: object) -> str | None:
    """A label as text; a list or an object is none."""
    if isinstance(value, str):
        return value.strip() or None
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def rates(
    grouped: Mapping[Name, Grouping],
    flags: Flags,
    suspicion: Tensor,
    injected: Tensor | None,
    rate: float,
    within: tuple[Name, GroupFlags] | None,
) -> dict[str, list[GroupRates] | None]:
    """`summary.groups`: of each grouping what each group holds, or null where it does not tell pairs apart.

    Args:
        suspicion: (n,) of the scored pairs, which are the first of those grouped. injected: as `estimate_noise_rate`
            takes it. rate: that of the flags.
        within: the grouping that flags were calibrated within, and how.
    """
    n = len(suspicion)
    noise = estimate_noise_rate(suspicion, injected) if injected is not None else None
    rows: dict[str, list[GroupRates] | None] = {}
    for name, grouping in grouped.items():
        mine = within[1] if within is not None and within[0] == name else None
        if not grouping.tells_apart and mine is None:
            rows[name] = None
            continue
        of, count = grouping.of[:n], len(grouping.names)
        wrong = [None] * count
        if noise is not None and injected is not None:
            wrong = wrong_by_group(suspicion, injected, noise, of, count).tolist()
        counts, flagged = (torch.bincount(of[which], minlength=count).tolist() for which in (of >= 0, flags.flagged))
        rows[name] = [
            {
                "group": grouping.names[place],
                "pairs": counts[place],
                "flagged": flagged[place],
                "flagged_rate": flagged[place] / counts[place],
                "estimated_noise_rate": no_less_than_flagged(wrong[place], flagged[place] / counts[place], rate),
                "calibration_pairs": mine.calibration_pairs[place] if mine is not None else None,
                "clean_pairs_needed": mine.clean_pairs_needed[place] if mine is not None else None,
            }
            for place in range(count)
            if counts[place]
        ]
    return rows


def warnings(by: Name, grouping: Grouping, within: GroupFlags, scored: int) -> list[str]:
    """What to know of flags that were calibrated within groups: where nothing is flagged, and what would help."""
    if not grouping.tells_apart:
        return [f"flag.by is {by}, and no two groups have {LEAST} pairs each: all calibrate together"]
    counts = torch.bincount(grouping.of[:scored], minlength=len(grouping.names)).tolist()
    flagged = torch.bincount(grouping.of[:scored][within.flags.flagged], minlength=len(grouping.names)).tolist()
    silent = [place for place, count in enumerate(counts) if count and not flagged[place]]
    if not silent:
        return []
    shown = [
        f"{_REST if grouping.names[place] is None else repr(grouping.names[place])} ({within.calibration_pairs[place]} "
        f"clean pairs, {_would_do(within.clean_pairs_needed[place])})"
        for place in silent[:_LISTED]
    ]
    more = f", and {len(silent) - _LISTED} more" if len(silent) > _LISTED else ""
    return [
        f"nothing is flagged in {len(silent)} of {sum(count > 0 for count in counts)} groups by {by}: "
        f"{', '.join(shown)}{more}; summary.groups.{by} has them all"
    ]


def _would_do(needed: int | None) -> str:
    return "more would not help" if needed is None else f"at least about {needed:,} would be needed"
