"""The notebook of a phase whose solves go in rounds (decision 43, `docs/decisions/`): what its steps have written down,
and the sum that the step before has asked for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ecif import OnState, State
from ecif.curvature.diagonal import SquaredDraws
from ecif.curvature.gauss_newton import GaussNewtonProduct
from ecif.curvature.hessian import HessianProduct
from ecif.notebook import Notebook
from ecif.objective import LossAndGradient
from ecif.self_influence import Draws
from ecif.sums import Sums, Term, Tree
from worker.analysis.tensors import get_tensors, keeper, put_tensors, resumed
from worker.attempts.task import Task
from worker.outputs import PendingSum, RoundPayload, SumRequest

_TERMS: dict[str, type[Term]] = {
    term.__name__: term for term in (GaussNewtonProduct, HessianProduct, LossAndGradient, Draws, SquaredDraws)
}
_WEIGHTS = "weights"


@dataclass(frozen=True)
class Question:
    """A sum over a pass of a job, at `weights` (P,), or at those of the problem where that is `None`. width: about how
    many float64 numbers a leaf of it gives."""

    term: Term
    over: str
    weights: Tensor | None
    leaves: int
    width: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        tensors = {name: value for name, value in self._fields.items() if isinstance(value, Tensor)}
        return tensors if self.weights is None else tensors | {_WEIGHTS: self.weights}

    @property
    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in self._fields.items() if isinstance(value, int)}

    @property
    def _fields(self) -> dict[str, Tensor | int]:
        return {field.name: getattr(self.term, field.name) for field in fields(self.term)}  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """Equal where the same is asked."""
        digest = hashlib.sha256(f"{type(self.term).__name__} {self.over} {self.leaves} {self.numbers}".encode())
        for name, tensor in self.tensors.items():
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def term_of(task: Task, request: SumRequest, device: torch.device) -> tuple[Term, Tensor | None]:
    """The term that a question is about, and the weights (P,) that it is taken at; `None` for those of the problem."""
    tensors = {name: tensor.to(device) for name, tensor in get_tensors(task.blobs, request.question).items()}
    weights = tensors.pop(_WEIGHTS, None)
    return _TERMS[request.term](**tensors, **request.numbers), weights


class WantedError(Exception):
    """A step needs a sum that is made in a round of its own."""

    def __init__(self, question: Question) -> None:
        super().__init__(f"{type(question.term).__name__} over {question.over}")
        self.question = question


class StepNotebook(Notebook):
    """Of one attempt at one step."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._went_on = RoundPayload.from_json(task.claim.payload).go_on
        self._keep = keeper(task)
        self._blobs = dict(self._went_on.pending.notes) if self._went_on else {}
        self._made: dict[str, dict[str, Tensor]] = {}
        self._answer = sum_of(task, self._went_on.parts) if self._went_on else None
        self._state: State | None = resumed(task)  # of an earlier attempt at this step, which got further
        self._new_state = self._state is not None
        if self._state is None and self._went_on and self._went_on.pending.state:
            self._state = get_tensors(task.blobs, self._went_on.pending.state)

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if name not in self._made:
            blob = self._blobs.get(name)
            made = get_tensors(self._task.blobs, blob) if blob else make()
            # As they are when they are read again: of a matrix in another order products round otherwise.
            self._made[name] = {key: tensor.contiguous() for key, tensor in made.items()}
        return self._made[name]

    def state(self, name: str) -> State | None:
        of = f"{name}/"
        mine = {key.removeprefix(of): value for key, value in (self._state or {}).items() if key.startswith(of)}
        return mine or None

    def keep(self, name: str) -> OnState:
        def keep(state: State) -> None:
            self._state, self._new_state = {f"{name}/{key}": value for key, value in state.items()}, True
            self._keep(self._state)

        return keep

    def sum(self, question: Question) -> Sums:
        """The answer to what the step before has asked.

        Raises:
            WantedError: it has asked something else, or the answer has been had already.
        """
        answer, self._answer = self._answer, None
        if answer is not None and self._went_on is not None and self._went_on.pending.digest == question.digest:
            return answer
        raise WantedError(question)

    def ask(self, question: Question) -> PendingSum:
        """Write down the question, and what is needed to go on when it is answered."""
        task, before = self._task, self._went_on
        read = [*before.parts, *before.read, before.pending.sum.question] if before else []
        state = before.pending.state if before else None
        if self._new_state and self._state is not None:
            read += [state] if state else []
            state = put_tensors(task.blobs, task.passing_name("state.safetensors"), self._state)
        for name in self._made.keys() - self._blobs.keys():
            blob = task.passing_name(f"{name}.kept.safetensors")
            self._blobs[name] = put_tensors(task.blobs, blob, self._made[name])
        return PendingSum(
            sum=SumRequest(
                term=type(question.term).__name__,
                over=question.over,
                numbers=question.numbers,
                question=put_tensors(task.blobs, task.passing_name("question.safetensors"), question.tensors),
            ),
            digest=question.digest,
            leaves=question.leaves,
            bytes=8 * question.width,
            state=state,
            notes=self._blobs,
            read=read,
        )

    def forget_what_was_read(self) -> None:
        """Delete what the step before has read: it has ended, so nobody will read that again."""
        for blob in self._went_on.pending.read if self._went_on else []:
            self._task.blobs.delete(blob)


def sum_of(task: Task, parts: list[str]) -> Sums:
    """The sum of partial sums in blobs, by the tree."""
    tree = Tree()
    for part in parts:
        task.lease.check()
        tree.add(get_tensors(task.blobs, part))
    return tree.total()
