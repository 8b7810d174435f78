"""TRAK by its authors (traker 0.3.2)."""

import tempfile

import torch
from problem import margins
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import NoOpProjector


class Margin(AbstractModelOutput):
    """The package's own CLIP output keeps its embeddings on a GPU and draws negatives anew; this one has the batch."""

    def __init__(self):
        super().__init__()

    @staticmethod
    def get_output(model, weights, buffers, texts, images, excluded, place):
        S = torch.func.functional_call(model, (weights, buffers), (texts[None], images[None], excluded[None]))
        return margins(S, place[None])[0]

    @staticmethod
    def get_out_to_loss_grad(model, weights, buffers, batch):
        texts, images, excluded, place = batch
        S = torch.func.functional_call(model, (weights, buffers), (texts, images, excluded))
        return torch.sigmoid(-margins(S, place)).clone().detach().unsqueeze(-1)


def traker(problem):
    """Every coordinate is kept: no projection is lossless. Scores of all validation pairs, weighed by how their loss
    goes with their margin."""
    parameters = sum(p.numel() for p in problem.model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        tracer = TRAKer(
            problem.model,
            Margin(),
            train_set_size=problem.n,
            save_dir=folder,
            device="cpu",
            projector=NoOpProjector(device="cpu"),
            use_half_precision=False,
            lambda_reg=problem.n * problem.ridge / parameters,
            logging_level=50,
        )
        state = problem.model.state_dict()
        tracer.load_checkpoint(state, model_id=0)
        for batch in problem.train():
            tracer.featurize(batch, num_samples=len(batch[0]))
        tracer.finalize_features()
        tracer.start_scoring_checkpoint("validation", state, model_id=0, num_targets=len(problem.singles))
        columns = problem.singles.tensors
        for first in range(0, len(problem.singles), 64):
            batch = [column[first : first + 64] for column in columns]
            tracer.score(batch, num_samples=len(batch[0]))
        scores = torch.as_tensor(tracer.finalize_scores("validation"))
        with torch.no_grad():
            texts, images, excluded, place = columns
            weight = torch.sigmoid(-margins(problem.model(texts, images, excluded), place))
    return scores.double() @ weight.double()
