"""What every format of an export is written from: the job, which of its pairs, and the columns of each."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from sqlalchemy.orm import Session

from service.jobs.succeeded import succeeded
from store import datasets, exports, marks
from store.blobs import Blobs
from store.database import Database
from store.errors import ConflictError
from store.exports import Exported, ExtraColumn
from store.tables import SCORES, Job

Keep = Literal["all", "clean", "flagged"]


class Images(Protocol):
    """Where images lie, one after another in blobs."""

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]: ...


class _Blanks:
    """As many bytes, and none read."""

    def get_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [bytes(length) for _, length in ranges]


_MOST_COLUMNS = 1000
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Source:
    """The chosen pairs of a job that succeeded.

    expected: how many there are. marks: the same text as long as nobody marks any of them. filename: that of the
    upload. judges: whether the job flags at all.
    """

    job_id: str
    job: int
    task: str
    dataset_id: str
    dataset: int
    flagged: bool | None
    expected: int
    marks: str
    database: Database
    images: Images
    judges: bool
    filename: str | None

    @classmethod
    def of(cls, job_id: str, keep: Keep, database: Database, blobs: Blobs) -> "Source":
        """The pairs of a job.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has not succeeded, or flagged nothing where that is asked for.
        """
        with database.transaction() as session:
            job = succeeded(session, job_id)
            dataset = datasets.get_including_deleted(session, job.dataset_id)
            return cls(
                job_id=job_id,
                job=job.number,
                task=job.task,
                dataset_id=job.dataset_id,
                dataset=dataset.number,
                flagged=None if keep == "all" else keep == "flagged",
                expected=_expected(job, keep),
                marks=marks.state(session, job.number),
                database=database,
                images=blobs,
                judges=job.flagged_count is not None,
                filename=dataset.filename,
            )

    def with_blanks(self) -> "Source":
        """The same with blanks for images: what is written of it is as long."""
        return replace(self, images=_Blanks())

    def pieces(self) -> Iterator[list[Exported]]:
        """The pairs in rank order. No connection is held while a piece is on its way to the client.

        Raises:
            RuntimeError: the job was deleted meanwhile; what was sent must not pass for the whole.
        """
        after = seen = 0
        while True:
            with self.database.transaction() as session:
                rows = exports.piece(session, self.job, self.dataset, flagged=self.flagged, after=after)
            if not rows:
                break
            after = rows[-1].rank
            seen += len(rows)
            yield rows
        if seen != self.expected:
            raise RuntimeError(f"export of {self.job_id}: {seen} of {self.expected} rows: was it deleted meanwhile?")

    def extra_names(self) -> list[str]:
        """The names of the other columns of the dataset.

        Raises:
            ConflictError: they are too many, or too long, to be the columns of one table.
        """
        names: set[str] = set()
        for positions in self._stretches():
            with self.database.transaction() as session:
                names |= exports.extra_names(
                    session, self.dataset, positions, most=_MOST_COLUMNS + 1, longest=_LONGEST_NAME + 1
                )
            if len(names) > _MOST_COLUMNS or any(len(name) > _LONGEST_NAME for name in names):
                raise ConflictError(
                    "too_many_columns",
                    f"its pairs came with more than {_MOST_COLUMNS} different columns, or with a name of more than "
                    f"{_LONGEST_NAME} characters: take format=jsonl, where each row names its own",
                )
        return sorted(names)

    def extra_columns(self) -> list[ExtraColumn]:
        """The same with what they hold.

        Raises:
            ConflictError: they are too many, or too long, to be the columns of one table.
        """
        columns = {name: ExtraColumn(name) for name in self.extra_names()}
        for positions in self._stretches():
            with self.database.transaction() as session:
                for column in exports.extra_columns(session, self.dataset, positions):
                    columns[column.name] = columns[column.name].joined(column)
        return list(columns.values())

    def uids(self) -> Iterator[list[str | None]]:
        """The uids of the pairs in rank order, a piece at a time; null where a pair has none."""
        after = 0
        while True:
            with self.database.transaction() as session:
                rows = exports.uids(session, self.job, self.dataset, flagged=self.flagged, after=after)
            if not rows:
                return
            after = rows[-1].rank
            yield [row.uid for row in rows]

    def _stretches(self) -> list[range]:
        with self.database.transaction() as session:
            return exports.stretches(session, self.dataset)

    def image_parts(self, what: str) -> dict[int, str]:
        """The blobs of the images, by part.

        Raises:
            ConflictError: there are no images, or the pairs are of queries.
        """
        self.of_a_dataset(what)
        with self.database.transaction() as session:
            kind = _kind_of_images(session, self.dataset_id)
            if kind is not None:
                raise ConflictError("no_images", f"{what} holds images, and {kind}: take csv, jsonl or parquet")
            return exports.part_blobs(session, self.dataset_id)

    def of_a_dataset(self, what: str) -> None:
        """Raise unless each pair stands once.

        Raises:
            ConflictError: a traceback names a pair once for every query.
        """
        if self.task == "traceback":
            raise ConflictError(
                "not_a_dataset",
                f"a traceback lists pairs by query, and {what} is a dataset: take csv, jsonl or parquet",
            )


def _expected(job: Job, keep: Keep) -> int:
    if keep == "all":
        return job.result_count
    if job.flagged_count is None:
        raise ConflictError(
            "nothing_flagged",
            f"a {job.task} flags no pairs, so none is clean or flagged: take keep=all, or the export of a misalignment "
            "job on the same dataset",
        )
    return job.flagged_count if keep == "flagged" else job.result_count - job.flagged_count


def _kind_of_images(session: Session, dataset_id: str) -> str | None:
    """Why there are none; `None` where there are."""
    dataset = datasets.get_including_deleted(session, dataset_id)
    if dataset.kind != "images":
        return f"its dataset is one of {dataset.kind}"
    return "its dataset was deleted, and the images with it" if dataset.deleted_at is not None else None


MARK_COLUMNS = ("mark", "mark_caption", "marked_by", "marked_at")
RESULT_COLUMNS = (
    *("rank", "query", "key", "caption", *SCORES, "flagged", "why", "better_caption", "exchanged_with"),
    *MARK_COLUMNS,
)
"""In this order; `open_clip` calls the caption `title`."""

_PREFIX = "input_"


def own_names(names: Iterable[str], taken: Collection[str] = RESULT_COLUMNS) -> dict[str, str]:
    """The columns that the other columns of a pair go into: a name that a result has too gets `input_` before it."""
    names = sorted(names)
    used = {*names, *taken}
    renamed = {}
    for name in names:
        own = name
        if name in taken:
            while own in used:
                own = _PREFIX + own
            used.add(own)
        renamed[name] = own
    return renamed


def extra_of(row: Exported) -> dict[str, Any]:
    """The other columns of one pair."""
    return json.loads(row.extra) if row.extra else {}


def as_object(row: Exported) -> dict[str, Any]:
    """All columns of one pair by their names."""
    values = {name: getattr(row, name) for name in RESULT_COLUMNS}
    extra = extra_of(row)
    names = own_names(extra)
    return values | {names[name]: value for name, value in extra.items()}


def cell(value: Any) -> Any:
    """A value as a table of text can hold it: lists and objects as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value
