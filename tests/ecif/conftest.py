"""One small world for the mathematics: a two-tower model of 220 parameters near a good one, and correlated pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from ecif import Batch, Objective, Params, cut_batches, forward_mode, plan_batches
from ecif.losses import SOFTMAX, Loss


@pytest.fixture(autouse=True, scope="session")
def forward_rules() -> None:
    """The oracles call torch.func themselves; torch's rules are loaded, and have warned, by then."""
    with forward_mode():
        pass


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """The cores are shared, and the tensors small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def embed(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """An image tower with a bend, so that Hessian and Gauss-Newton differ, and a linear text tower."""
    bent = images + 0.5 * torch.tanh(images @ params["hidden"].mT)
    return texts @ params["text"].mT, bent @ params["image"].mT


@dataclass
class World:
    """N pairs in R partitions, and a model for them."""

    n: int = 24
    batch_size: int = 8
    partitions: int = 1
    l2: float = 0.3
    scale: float = 5.0
    dtype: torch.dtype = torch.float64
    seed: int = 0
    duplicates: bool = True
    loss: Loss = SOFTMAX
    params: Params = field(init=False)
    data: Batch = field(init=False)
    objective: Objective = field(init=False)

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64).to(self.dtype)

        latent, to_image, to_text = draw(self.n, 6), draw(6, 10), draw(6, 10)
        captions = torch.arange(self.n)
        if self.duplicates:
            captions[self.n // 2] = 0  # one pair of equal captions
        self.data = Batch(
            latent @ to_image + 0.5 * draw(self.n, 10),
            latent @ to_text + 0.5 * draw(self.n, 10),
            captions,
            torch.arange(self.n),
        )
        # Like a pretrained model: roughly what recovers the latent variable.
        self.params = {
            "image": torch.linalg.pinv(to_image.double()).mT.to(self.dtype) + 0.1 * draw(6, 10),
            "hidden": 0.3 * draw(10, 10),
            "text": torch.linalg.pinv(to_text.double()).mT.to(self.dtype) + 0.1 * draw(6, 10),
        }
        self.objective = Objective(
            embed,
            self.scale,
            self.l2,
            dict(self.params),
            self.n,
            self.partitions,
            loss=self.loss,
            bias=-2.0 if self.loss.biased else 0.0,
        )
        self.plan = plan_batches(self.n, self.batch_size, self.partitions, self.seed)

    def take(self, pairs: Tensor) -> Batch:
        d = self.data
        return Batch(d.images[pairs], d.texts[pairs], d.caption_group[pairs], d.image_group[pairs])

    def batches(self, without: Tensor | None = None) -> list[Batch]:
        """All partitions' batches; pairs in `without` are deleted, the membership staying as it was."""
        cuts = [cut for row in self.plan for cut in cut_batches(row, self.batch_size)]
        if without is not None:
            cuts = [cut[~torch.isin(cut, without)] for cut in cuts]
        return [self.take(cut) for cut in cuts if len(cut)]


MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def make_world() -> MakeWorld:
    return World


@dataclass
class HeadsWorld:
    """Synthetic embeddings with two square heads that start at the identity, a fifth of the pairs wrong."""

    seed: int
    n: int = 256
    width: int = 8
    batch_size: int = 32
    l2: float = 0.3
    scale: float = 10.0
    wrong: float = 0.2
    decay: float = 0.5  # of the latent directions' sizes: i^−decay
    common: float = 0.0  # what all embeddings share, as real ones do
    n_validation: int = 128
    dtype: torch.dtype = torch.float64
    loss: Loss = SOFTMAX
    bias: float = 0.0

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(1000 + self.seed)
        total, E = self.n + self.n_validation, self.width

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        sizes = torch.arange(1, E + 1, dtype=torch.float64) ** -self.decay
        latent = draw(total, E) * sizes
        mix = torch.linalg.qr(draw(E, E))[0]
        images = (latent + 0.4 * sizes * draw(total, E)) @ mix + self.common * draw(E)
        texts = (latent + 0.4 * sizes * draw(total, E)) @ (mix + 0.3 * draw(E, E) / E**0.5) + self.common * draw(E)
        wrong = torch.randperm(self.n, generator=g)[: round(self.wrong * self.n)]
        texts[wrong] = texts[wrong.roll(1)]
        self.images = torch.nn.functional.normalize(images, dim=1).to(self.dtype)
        self.texts = torch.nn.functional.normalize(texts, dim=1).to(self.dtype)
        self.params = {f"{tower}.weight": torch.eye(E, dtype=self.dtype) for tower in ("image", "text")}
        self.objective = Objective(
            apply_heads, self.scale, self.l2, dict(self.params), self.n, loss=self.loss, bias=self.bias
        )
        self.plan = cut_batches(plan_batches(self.n, self.batch_size, 1, self.seed)[0], self.batch_size)
        order = plan_batches(self.n_validation, self.batch_size, 1, self.seed)[0] + self.n
        self.validation_plan = cut_batches(order, self.batch_size)

    def take(self, pairs: Tensor) -> Batch:
        return Batch(self.images[pairs], self.texts[pairs], pairs, pairs)

    def batches(self) -> list[Batch]:
        return [self.take(cut) for cut in self.plan]

    def validation(self, params: Params) -> tuple[float, Tensor]:
        """L_val and its gradient."""
        batches = [self.take(cut) for cut in self.validation_plan]
        return self.objective.validation_value_and_gradient(params, batches, self.n_validation)


def apply_heads(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Linear heads, as those that the encoders build."""
    return texts @ params["text.weight"].mT, images @ params["image.weight"].mT


MakeHeads = Callable[..., HeadsWorld]


@pytest.fixture(scope="session")
def make_heads() -> MakeHeads:
    return HeadsWorld
