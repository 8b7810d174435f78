"""The queries of a traceback: images, true and predicted texts, and the candidates that they are classified among."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.at_once import AtOnce
from store.errors import InvalidError
from store.pairs import accepted
from store.specification import Queries
from store.summaries import Query
from store.tables import Pair
from worker.analysis.features import AT_ONCE
from worker.analysis.models import job_model
from worker.analysis.problem import Problem


@dataclass(frozen=True)
class QueryBatch:
    """Some queries, ready to compute on.

    images: (q, …), candidates: (c, …), as the embedder takes them. true: (q,) places among the candidates.
    predicted: (q,) likewise, −1 where the model shall say itself. names: of the candidates, for people.
    """

    keys: list[str]
    images: Tensor
    candidates: Tensor
    true: Tensor
    predicted: Tensor
    names: list[str]

    def predicted_by(self, S: Tensor) -> Tensor:
        """(q,): what was predicted, as its user said, or else by the model from its scores S (q, c)."""
        return torch.where(self.predicted >= 0, self.predicted, S.argmax(1))

    def report(self, losses: Tensor) -> list[Query]:
        """What the summary says of each query."""
        return [
            {
                "key": key,
                "true": self.names[true],
                "predicted": self.names[predicted] if predicted >= 0 else None,
                "loss": loss,
            }
            for key, true, predicted, loss in zip(
                self.keys, self.true.tolist(), self.predicted.tolist(), losses.tolist(), strict=True
            )
        ]


def read_queries(problem: Problem, queries: Queries, first: int, last: int) -> QueryBatch:
    """The queries of rows first to last.

    Raises:
        InvalidError: a true or predicted text is not a candidate, or there are too few to tell apart.
    """
    pairs = _pairs(problem)
    rows = torch.arange(first, last)
    mine = pairs[first:last]
    if problem.view.spec.model is None:
        return _of_embeddings(problem, queries, pairs, mine, rows)
    texts = [pair.caption or "" for pair in pairs]
    predicted_texts = [_predicted(pair) for pair in pairs]
    names = list(queries.candidates or dict.fromkeys([*texts, *(text for text in predicted_texts if text is not None)]))
    place = {name: index for index, name in enumerate(names)}
    _enough(names)
    for pair, predicted in zip(pairs, predicted_texts, strict=True):
        for what, text in (("true", pair.caption), ("predicted", predicted)):
            if text is not None and text not in place:
                raise InvalidError(
                    "not_a_candidate",
                    f"query {pair.key!r}: its {what} text {text!r} is no candidate",
                    "queries.candidates",
                )
    model = job_model(problem.task, problem.view.spec, problem.device)
    assert model is not None  # noqa: S101  a job on images has one
    candidates = model.tokenize(names).ids.to(problem.device)
    if problem.view.spec.objective.scope == "heads":
        tokens = candidates
        parts = AtOnce("texts", AT_ONCE).pieces(len(tokens), lambda some: model.text_features(tokens[some]))
        candidates = torch.cat(list(parts))
    predictions = [place[text] if text is not None else -1 for text in predicted_texts[first:last]]
    return QueryBatch(
        keys=[pair.key or "" for pair in mine],
        images=problem.queries(rows).images,
        candidates=candidates,
        true=torch.tensor([place[pair.caption or ""] for pair in mine], device=problem.device),
        predicted=torch.tensor(predictions, device=problem.device),
        names=names,
    )


def _of_embeddings(problem: Problem, queries: Queries, pairs: list[Pair], mine: list[Pair], rows: Tensor) -> QueryBatch:
    """Candidates are the distinct text embeddings of the queries; a caption beside them is only their name."""
    if queries.candidates is not None:
        raise InvalidError("candidates_not_used", "queries of embeddings bring their candidates", "queries.candidates")
    everyone = problem.queries(torch.arange(len(pairs)))
    distinct, place = torch.unique(everyone.caption_group, return_inverse=True)
    first_of = torch.full((len(distinct),), len(pairs), dtype=torch.int64, device=place.device)
    first_of = first_of.scatter_reduce(0, place, torch.arange(len(pairs), device=place.device), "amin")
    names = [pairs[index].caption or f"text of {pairs[index].key}" for index in first_of.tolist()]
    _enough(names)
    by_name = {name: index for index, name in enumerate(names)}
    return QueryBatch(
        keys=[pair.key or "" for pair in mine],
        images=everyone.images[rows],
        candidates=everyone.texts[first_of],
        true=place[rows],
        predicted=torch.tensor([by_name.get(_predicted(pair) or "", -1) for pair in mine], device=problem.device),
        names=names,
    )


def _enough(names: list[str]) -> None:
    if len(names) < 2:
        raise InvalidError(
            "too_few_candidates", "a query is classified among at least two texts; name them", "queries.candidates"
        )


def _predicted(pair: Pair) -> str | None:
    text = (pair.extra or {}).get("predicted")
    return text if isinstance(text, str) and text else None


def _pairs(problem: Problem) -> list[Pair]:
    queries = problem.view.queries
    assert queries is not None  # noqa: S101  a traceback has them
    with problem.task.database.transaction() as session:
        return accepted(session, queries.number)
