"""The same heads and the same loss, as packages for losses of single examples can have them.

An example is a pair with all that it meets in the loss: the features of its batch, which entries are no negatives, and
its place. Its loss is Pos_n = −log p[n,n] − log q[n,n] in that batch, so that the examples' losses sum to the objective
without its regulariser, value, gradient and Hessian alike. What no such package can be told is that a pair stands in
the losses of others too. A place of −1 is the sum over the batch: so a batch of validation pairs is one query.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Heads(nn.Module):
    """Two linear heads: logits S (b, B, B) of b examples, rows texts, columns images."""

    def __init__(self, texts, images, embedding, scale):
        super().__init__()
        self.text = nn.Linear(texts, embedding, bias=False)
        self.image = nn.Linear(images, embedding, bias=False)
        self.scale = scale

    def forward(self, texts, images, excluded):
        unit = nn.functional.normalize
        S = self.scale * unit(self.text(texts), dim=-1) @ unit(self.image(images), dim=-1).mT
        return S.masked_fill(excluded, -1e30)


def own_losses(S):
    """(b, B): −log p[n,n] − log q[n,n] of all pairs of each example's batch."""
    return -(S.log_softmax(-1) + S.log_softmax(-2)).diagonal(dim1=-2, dim2=-1)


def example_losses(S, place):
    """(b,): of the pair at its place, or of all where it is −1."""
    losses = own_losses(S)
    mine = losses.gather(-1, place.clamp(min=0)[:, None])[:, 0]
    return torch.where(place < 0, losses.sum(-1), mine)


def margins(S, place):
    """(b,): f of TRAK, the mean of log p/(1 − p) in the pair's row and its column."""
    own = torch.eye(S.shape[-1], dtype=torch.bool)
    rest, true = S.masked_fill(own, -1e30), S.diagonal(dim1=-2, dim2=-1)
    both = 0.5 * ((true - rest.logsumexp(-1)) + (true - rest.logsumexp(-2)))
    return both.gather(-1, place[:, None])[:, 0]


@dataclass
class Problem:
    """What `prepare` of ours wrote: N examples, queries, trained weights, and what a damping has to be.

    ridge: δ + λ per pair. checkpoints: state dicts along the fit. places: which pair each example is.
    """

    model: Heads
    examples: TensorDataset
    queries: TensorDataset
    singles: TensorDataset
    n_validation: int
    ridge: float
    checkpoints: list
    places: torch.Tensor

    @classmethod
    def load(cls, path):
        given = torch.load(path, weights_only=True)
        text, image = given["theta"]["text.weight"], given["theta"]["image.weight"]
        model = Heads(text.shape[1], image.shape[1], text.shape[0], given["scale"])
        model.load_state_dict(given["theta"])
        return cls(
            model.eval(),
            _examples(given["train"]),
            TensorDataset(*(torch.stack(one) for one in zip(*map(_query, given["validation"]), strict=True))),
            _examples(given["validation"]),
            sum(len(batch["texts"]) for batch in given["validation"]),
            given["ridge"],
            given["checkpoints"],
            torch.cat([batch["places"] for batch in given["train"]]),
        )

    @property
    def n(self):
        return len(self.examples)

    def train(self, size=64):
        """Examples in their order."""
        return DataLoader(self.examples, batch_size=size, shuffle=False)

    def whole(self):
        """All examples in one batch."""
        return self.train(self.n)


def _query(batch):
    return batch["texts"], batch["images"], batch["excluded"], torch.tensor(-1)


def _examples(batches):
    parts = []
    for batch in batches:
        B = len(batch["texts"])
        wide = [batch[name].expand(B, *batch[name].shape) for name in ("texts", "images", "excluded")]
        parts.append((*wide, torch.arange(B)))
    return TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))
