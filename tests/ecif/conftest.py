"""One small world for the mathematics: a two-tower model of 220 parameters near a good one, and correlated pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from ecif import Batch, Objective, Params, cut_batches, forward_mode, plan_batches


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
        self.objective = Objective(embed, self.scale, self.l2, dict(self.params), self.n, self.partitions)
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


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return World
