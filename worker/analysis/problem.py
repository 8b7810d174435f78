"""The training problem of a job, ready to compute on: objective, starting weights, streams of batches, and how passes
over the training pairs are cut into shards."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecif import Batch, Objective, cut_batches, flatten, removal_gradient
from ecif.at_once import DIRECTIONS
from ecif.batches import pairs_before
from ecif.losses import SIGMOID, SOFTMAX, Loss
from ecif.notebook import Notebook
from ecif.objective import LOGIT_BIAS, LOGIT_SCALE, starting_logit_scale
from ecif.parameters import Params, size
from ecif.sums import LEAF, Pass, Sums, Term, total
from encoders import Embedder
from store.job_phases import PAIRS_A_SHARD as _PAIRS_A_SHARD
from store.job_phases import batches_a_shard
from store.losses import bias_missing
from store.shards import Planned
from store.specification import JobSpec
from worker.analysis.job_view import DatasetView, JobView
from worker.analysis.models import device_of, job_embedder, job_model, starts_from_nothing
from worker.analysis.notebook import Question, StepNotebook
from worker.analysis.records import PartBlob, RecordTable
from worker.analysis.roster import QUERIES, Roster, get_removed
from worker.analysis.tensors import get_tensors
from worker.attempts.task import Task
from worker.outputs import BatchRange, EncodeOutput, FitOutput, PlanOutput
from worker.pipeline import Planning


@dataclass(frozen=True)
class Problem:
    """One job's objective over its own data.

    `initial` are the weights that it starts from, `params` those after `fit` (the same where nothing was fitted).
    `notebook` is that of a phase whose solves go in rounds.
    """

    view: JobView
    roster: Roster
    objective: Objective
    initial: Params
    params: Params
    device: torch.device
    tables: tuple[RecordTable | None, ...]
    task: Task
    notebook: Notebook = field(default_factory=Notebook)

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """As `Notebook.once`, on the device of the problem."""
        made = self.notebook.once(name, make)
        return {key: tensor.to(self.device) for key, tensor in made.items()}

    def progress(self, done: int) -> None:
        """Say how far a phase of one step is; what has rounds is told by their number."""
        if self.task.claim.round:
            self.task.lease.check()
        else:
            self.task.lease.progress(done)

    @property
    def as_given(self) -> Params:
        """The weights that embeddings are compared by: those the user brought, before a fit on wrong pairs drew those
        together; the fitted ones where the model started from random weights and knew nothing before."""
        return self.params if starts_from_nothing(self.view.spec) else self.initial

    def batch(self, places: Tensor) -> Batch:
        """The training pairs at these places of the roster."""
        return self._read(self.roster.source[places], self.roster.row[places])

    def placed_batches(self) -> Iterator[tuple[Tensor, Batch]]:
        """One pass: all batches of all partitions, in order, each with the places of its pairs in the roster."""
        for partition in range(len(self.roster.partitions)):
            for places in self.roster.batches(partition):
                self.task.lease.check()
                yield places, self.batch(places)

    def training_batches(self) -> "DataPass":
        """The batches of `placed_batches` alone."""
        partitions = range(len(self.roster.partitions))
        return DataPass(self, TRAINING, [places for r in partitions for places in self.roster.batches(r)])

    def validation_batches(self) -> "DataPass":
        """One pass over the pairs that define the validation loss."""
        return DataPass(self, VALIDATING, cut_batches(torch.arange(self.roster.n_validation), self.roster.batch_size))

    def pass_over(self, over: str) -> "DataPass":
        """The pass of this name."""
        return self.training_batches() if over == TRAINING else self.validation_batches()

    def validation_batch(self, places: Tensor) -> Batch:
        """The validation pairs at these places of the roster."""
        return self._read(self.roster.validation_source[places], self.roster.validation_row[places])

    def queries(self, rows: Tensor) -> Batch:
        """The queries of a traceback at these rows of their dataset."""
        return self._read(torch.full_like(rows, QUERIES), rows)

    def groups(self) -> tuple[Tensor, Tensor]:
        """(caption_group, image_group) of all training pairs, (N,) int64 each, as batches have them; no features are
        read to a device for it."""
        parts = [
            self._records(self.roster.source[places], self.roster.row[places])
            for places in torch.split(torch.arange(self.roster.n_pairs), 1024)
        ]
        captions, images = (
            self._tensor(np.concatenate([records[name] for records in parts])) for name in ("caption", "image_hash")
        )
        return captions, images

    def _read(self, source: Tensor, row: Tensor) -> Batch:
        records = self._records(source, row)
        return Batch(
            images=self._tensor(records["image"]),
            texts=self._tensor(records["text"]),
            caption_group=self._tensor(records["caption"]),
            image_group=self._tensor(records["image_hash"]),
        )

    def _records(self, source: Tensor, row: Tensor) -> npt.NDArray[Any]:
        sources, rows = source.numpy(), row.numpy()
        records: npt.NDArray[Any] | None = None
        for which, table in enumerate(self.tables):
            mine = sources == which
            if table is None or not mine.any():
                continue
            of_table = table.rows(rows[mine])
            if mine.all():
                records = of_table
                break
            if records is None:
                records = np.empty(len(rows), dtype=of_table.dtype)
            records[mine] = of_table
        assert records is not None  # noqa: S101  a batch is never empty
        return records

    def _tensor(self, column: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(column))
        if tensor.dtype == torch.int32:
            tensor = tensor.long()  # token ids; embedding tables want int64
        return tensor.to(self.device)


TRAINING, VALIDATING = "training", "validation"


@dataclass(frozen=True)
class DataPass(Pass):
    """A pass over the batches of a problem, at `places` of its roster."""

    problem: Problem
    over: str
    places: list[Tensor]

    def __iter__(self) -> Iterator[Batch]:
        return self.between(0, len(self.places))

    def between(self, first: int, last: int) -> Iterator[Batch]:
        """The batches from `first` to `last`."""
        read = self.problem.batch if self.over == TRAINING else self.problem.validation_batch
        for places in islice(self.places, first, last):
            self.problem.task.lease.check()
            yield read(places)

    def summed(self, term: Term, objective: Objective, params: Params) -> Sums:
        """Here, where that is little work or no round can follow; else in a round of shards.

        Raises:
            WantedError: it is to be made in a round.
        """
        problem, leaves = self.problem, -(-len(self.places) // LEAF)
        work = sum(map(len, self.places)) * size(params)
        notebook = problem.notebook
        little = leaves <= 1 or work < problem.task.settings.ecif_rounds_from
        if little or not isinstance(notebook, StepNotebook) or objective is not problem.objective:
            return total(term, objective, params, self)
        weights = None if params is problem.params else flatten(params)
        width = sum(value.numel() for value in vars(term).values() if isinstance(value, Tensor)) or size(params)
        answer = notebook.sum(Question(term, self.over, weights, leaves, width))
        return {name: tensor.to(problem.device) for name, tensor in answer.items()}


@contextmanager
def open_problem(task: Task) -> Iterator[Problem]:
    """The problem of the job that a shard belongs to; its files close with the block."""
    DIRECTIONS.reset()  # what did not fit for another model may for this one
    view = JobView.of(task)
    device = device_of(task.settings)
    model = job_model(task, view.spec, device)
    embedder = job_embedder(view.spec, model, view.dataset.width, device)
    roster = Roster.load(task.blobs, view.plan.roster)
    wanted = view.spec.objective
    start = Start.of(view.spec, embedder, device)
    initial = start.weights
    objective = Objective(
        embed=embedder,
        scale=start.scale,
        l2=wanted.l2,
        prior=initial,
        n_pairs=roster.n_pairs,
        partitions=wanted.partitions,
        mask_duplicates=wanted.mask_duplicates,
        linear=wanted.scope == "heads",
        loss=start.loss,
        bias=start.bias,
    )
    fitted = view.output(FitOutput) if FitOutput in view.read else None
    params = initial
    if fitted is not None:
        stored = get_tensors(task.blobs, fitted.params)
        params = {name: stored[name].to(device) for name in initial}
    with ExitStack() as files:
        tables = record_tables(task, view, files)
        yield Problem(view, roster, objective, initial, params, device, tables, task)


class Start(NamedTuple):
    """Where a job starts from at a model: the weights, the scale s there, the loss, and the bias b of its logits."""

    weights: Params
    scale: float
    loss: Loss
    bias: float

    @classmethod
    def of(cls, spec: JobSpec, embedder: Embedder, device: torch.device) -> Self:
        """What the job asks for, or else what the model was trained with.

        Raises:
            InvalidError: the sigmoid loss of a model that has no bias, and none is given.
        """
        wanted = spec.objective
        loss, bias = _loss_of(spec, embedder)
        temperature = wanted.temperature or max(embedder.temperature, 1 / loss.largest_scale)
        scale = min(1 / temperature, loss.largest_scale)
        weights = dict(embedder.parameters)
        if wanted.train_temperature:
            weights[LOGIT_SCALE] = torch.tensor(starting_logit_scale(scale, loss), device=device)
            if loss.biased:  # the two balance each other
                weights[LOGIT_BIAS] = torch.tensor(bias, device=device)
        return cls(weights, scale, loss, bias)


def _loss_of(spec: JobSpec, embedder: Embedder) -> tuple[Loss, float]:
    wanted, of_model = spec.objective, embedder.logit_bias
    if wanted.loss == "softmax" or (wanted.loss is None and of_model is None):
        return SOFTMAX, 0.0
    bias = of_model if wanted.logit_bias is None else wanted.logit_bias
    if bias is None:
        raise bias_missing()
    return SIGMOID, bias


def set_gradient(problem: Problem) -> Tensor:
    """∇(Σ_R Pos + Neg_R), (P,) float64, of the pairs that a removal takes out, averaged over the partitions."""
    removed = get_removed(problem.task, problem.view.plan)
    total = torch.zeros_like(flatten(problem.params), dtype=torch.float64)
    for partition in range(len(problem.roster.partitions)):
        for places in problem.roster.batches(partition):
            if bool(removed[places].any()):
                problem.task.lease.check()
                leaving = removed[places].to(problem.device)
                total += removal_gradient(problem.objective, problem.params, problem.batch(places), leaving)
    return total / len(problem.roster.partitions)


def record_tables(
    task: Task, view: JobView, files: ExitStack, checkpoint: str | None = None
) -> tuple[RecordTable | None, ...]:
    """Those of the dataset, the validation set and the queries, as far as there are any; their files close with
    `files`. checkpoint: that encoded them, in place of the job's own model."""

    def table(dataset: DatasetView | None) -> RecordTable | None:
        if dataset is None:
            return None
        parts: Iterable[PartBlob] = dataset.parts
        if view.spec.model is not None:
            encoded = view.outputs(EncodeOutput)
            mine = [out for out in encoded if out.dataset == dataset.id and out.checkpoint == checkpoint]
            parts = [PartBlob(output.blob, output.first_row, output.count) for output in mine]
        records = RecordTable(task.blobs, sorted(parts, key=lambda part: part.first_row))
        files.callback(records.close)
        return records

    return tuple(table(dataset) for dataset in (view.dataset, view.validation, view.queries))


def batch_ranges(planning: Planning) -> list[Planned]:
    """About as many pairs in each shard, whatever the number of workers: the sums are grouped alike every time."""
    plan, size = planning.output(PlanOutput), planning.spec.objective.batch_size
    step = batches_a_shard(size, _PAIRS_A_SHARD)
    planned = []
    for partition in range(planning.spec.objective.partitions):
        for first in range(0, plan.batches, step):
            last = min(first + step, plan.batches)
            payload = BatchRange(partition, first, last).as_json()
            before, until = (pairs_before(batch, plan.pairs, plan.batches) for batch in (first, last))
            planned.append(Planned(payload, until - before))
    return planned


def places_of(problem: Problem) -> list[Tensor]:
    """The batches of this shard, as places in the roster."""
    mine = BatchRange.from_json(problem.task.claim.payload)
    return problem.roster.batches(mine.partition)[mine.first : mine.last]


def pairs_of(problem: Problem) -> int:
    """How many pairs stand in the batches of this shard."""
    return sum(len(places) for places in places_of(problem))


def batches_of(problem: Problem) -> Iterator[tuple[int, Batch]]:
    """The batches of this shard, each with its index in a whole pass; progress is told on the way."""
    mine, done = BatchRange.from_json(problem.task.claim.payload), 0
    before = mine.partition * len(problem.roster.batches(mine.partition)) + mine.first
    for index, places in enumerate(places_of(problem), before):
        problem.task.lease.progress(done)
        yield index, problem.batch(places)
        done += len(places)
