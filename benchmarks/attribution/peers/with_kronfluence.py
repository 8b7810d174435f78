"""Kronfluence 1.0.1: EK-FAC by the true Fisher matrix."""

import tempfile

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from problem import example_losses


class Contrastive(Task):
    """A batch of examples passes each head as sequences; labels are drawn for the pair's row and its column."""

    def compute_train_loss(self, batch, model, sample=False):
        texts, images, excluded, place = batch
        S = model(texts, images, excluded)
        if not sample:
            return example_losses(S, place).sum()
        each = torch.arange(len(S))
        rows, columns = S[each, place].log_softmax(-1), S[each, :, place].log_softmax(-1)
        total = 0.0
        for logs in (rows, columns):
            drawn = torch.multinomial(logs.detach().exp(), 1)
            total = total - logs.gather(-1, drawn).sum()
        return total

    def compute_measurement(self, batch, model):
        texts, images, excluded, place = batch
        return example_losses(model(texts, images, excluded), place).sum()


def ekfac(problem):
    task = Contrastive()
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(problem.model, task)
        analyzer = Analyzer("heads", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        analyzer.fit_all_factors(
            "factors",
            problem.examples,
            per_device_batch_size=64,
            factor_args=FactorArguments(strategy="ekfac"),
            overwrite_output_dir=True,
        )
        analyzer.compute_pairwise_scores(
            "scores",
            factors_name="factors",
            query_dataset=problem.queries,
            train_dataset=problem.examples,
            per_device_query_batch_size=1,
            per_device_train_batch_size=64,
            score_args=ScoreArguments(damping_factor=problem.ridge),
            overwrite_output_dir=True,
        )
        scores = analyzer.load_pairwise_scores("scores")["all_modules"]
    return scores.sum(0)
