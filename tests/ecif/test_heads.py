"""Closed forms of linear heads against torch.func on the same objective."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ecif import Batch, Dense, GaussNewton, Objective, Params, cut_batches
from ecif.curvature.choice import from_products
from ecif.curvature.dense import dense_matrix
from ecif.heads import MOST_STACKED, AtParams, Stack, stacked
from ecif.linearise import pull, push
from ecif.losses import SIGMOID, SOFTMAX, Loss
from ecif.roles import positive
from ecif.scoring import score_batch, score_batches
from ecif.self_influence import pair_gradients


def embed(params: Params, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    linear = torch.nn.functional.linear
    return (
        linear(texts, params["text.weight"], params.get("text.bias")),
        linear(images, params["image.weight"], params.get("image.bias")),
    )


class Heads:
    """27 pairs in batches of 4, the last of 3; widths 5 and 7 into 3; equal captions, equal images, rows of zeros."""

    def __init__(
        self, *, bias: bool, dtype: torch.dtype = torch.float64, scale: float = 20.0, loss: Loss = SOFTMAX
    ) -> None:
        g = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

        self.params = {"text.weight": draw(3, 5), "image.weight": draw(3, 7)}
        if bias:
            self.params |= {"text.bias": draw(3), "image.bias": draw(3)}
        captions, images = torch.arange(27), torch.arange(27)
        captions[1], images[6] = 0, 5
        x, y = draw(27, 7), draw(27, 5)
        x[9], y[10] = 0, 0
        self.data = Batch(x, y, captions, images)
        of_logits = -3.0 if loss.biased else 0.0
        self.objective = Objective(embed, scale, 0.1, dict(self.params), 27, linear=True, loss=loss, bias=of_logits)
        self.directions = torch.stack([torch.cat([draw(t.numel()) for t in self.params.values()]) for _ in range(5)])

    @property
    def plain(self) -> Objective:
        return replace(self.objective, linear=False)

    def batches(self, size: int = 4) -> list[Batch]:
        d = self.data
        cuts = cut_batches(torch.arange(27), size)
        return [Batch(d.images[c], d.texts[c], d.caption_group[c], d.image_group[c]) for c in cuts]


@pytest.fixture(params=[(False, SOFTMAX), (True, SOFTMAX), (True, SIGMOID)], ids=["no bias", "bias", "bias, sigmoid"])
def heads(request: pytest.FixtureRequest) -> Heads:
    bias, loss = request.param
    return Heads(bias=bias, loss=loss)


@pytest.mark.parametrize("size", [4, 26, 27])  # 26 leaves a last batch of one pair
def test_value_and_gradient(heads: Heads, size: int) -> None:
    value, gradient = heads.objective.value_and_gradient(heads.params, heads.batches(size))
    expected, other = heads.plain.value_and_gradient(heads.params, heads.batches(size))
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


def test_one_batch(heads: Heads) -> None:
    for batch in heads.batches():
        value, gradient = heads.objective.batch_value_and_gradient(heads.params, batch)
        expected, other = heads.plain.batch_value_and_gradient(heads.params, batch)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("masked", [True, False])
def test_pushed_and_pulled(heads: Heads, masked: bool) -> None:
    objective = replace(heads.objective, mask_duplicates=masked)
    plain = replace(objective, linear=False)
    for batch in heads.batches():
        S, dS = push(objective, heads.params, batch, heads.directions)
        expected, moved = push(plain, heads.params, batch, heads.directions)
        torch.testing.assert_close(S, expected)
        torch.testing.assert_close(dS, moved)
        c = torch.randn(2, batch.size, batch.size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(pull(objective, heads.params, batch)[1](c), pull(plain, heads.params, batch)[1](c))
    none = push(objective, heads.params, heads.batches()[0], heads.directions[:0])[1]
    assert none.shape == (0, 4, 4)


def test_gauss_newton_products(heads: Heads) -> None:
    ours, plain = (
        GaussNewton(objective, heads.params, heads.batches, damping=0.2) for objective in (heads.objective, heads.plain)
    )
    torch.testing.assert_close(ours.apply(heads.directions), plain.apply(heads.directions))


@pytest.mark.parametrize("mode", ["exact", "taylor"])
def test_scores_and_per_pair_gradients(heads: Heads, mode: str) -> None:
    for batch in heads.batches():
        ours = score_batch(heads.objective, heads.params, batch, heads.directions, mode)  # type: ignore[arg-type]
        plain = score_batch(heads.plain, heads.params, batch, heads.directions, mode)  # type: ignore[arg-type]
        for name in ("positive", "negative", "pair", "pair_loss", "clip_score"):
            torch.testing.assert_close(getattr(ours, name), getattr(plain, name))
        torch.testing.assert_close(
            pair_gradients(heads.objective, heads.params, batch, mode),  # type: ignore[arg-type]
            pair_gradients(heads.plain, heads.params, batch, mode),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("mode", ["exact", "taylor"])
def test_batches_are_scored_together_as_apart(heads: Heads, mode: str) -> None:
    given = (heads.params, heads.batches(), heads.directions, mode)
    ours = list(score_batches(heads.objective, *given))  # type: ignore[arg-type]
    plain = list(score_batches(heads.plain, *given))  # type: ignore[arg-type]
    assert len(ours) == len(plain) == len(heads.batches())
    for one, other in zip(ours, plain, strict=True):
        for name in ("positive", "negative", "pair", "pair_loss", "clip_score"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))
    with pytest.raises(ValueError, match="directions"):
        next(score_batches(heads.objective, heads.params, heads.batches(), heads.directions[0]))


def test_several_batches_share_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, of = Heads(bias=False), AtParams.of
    evaluated: list[int] = []

    def counted(objective: Objective, params: Params, part: Stack | Batch) -> AtParams:
        evaluated.append(len(part.texts))
        return of(objective, params, part)

    monkeypatch.setattr(AtParams, "of", counted)
    list(score_batches(heads.objective, heads.params, heads.batches(), heads.directions))
    assert evaluated == [6, 1]  # batches of four, and the last of three


def test_a_trained_temperature_is_left_to_torch(heads: Heads) -> None:
    params = heads.params | {"logit_scale": torch.tensor(2.0, dtype=torch.float64)}
    objective = replace(heads.objective, prior=params)
    assert not objective.closed_form(params)
    gradient = objective.value_and_gradient(params, heads.batches())[1]
    assert len(gradient) == len(heads.directions[0]) + 1


def test_a_sure_pair_keeps_its_digits_in_single_precision() -> None:
    single, double = Heads(bias=False, dtype=torch.float32, scale=100.0), Heads(bias=False, scale=100.0)
    batch, wide = single.batches()[2], double.batches()[2]
    S = AtParams.of(single.objective, single.params, batch).S + 30 * torch.eye(4)
    exact = AtParams.of(double.objective, double.params, wide).S + 30 * torch.eye(4)
    expected = torch.func.grad(lambda s: positive(s).sum())(exact)
    assert float(expected.abs().min()) < 1e-12
    torch.testing.assert_close(SOFTMAX.gradient(S).double(), expected, rtol=1e-3, atol=1e-30)


def test_neighbours_of_equal_size_are_stacked_in_their_order() -> None:
    heads = Heads(bias=False)
    batches = heads.batches()
    stacks = list(stacked(batches * 10))
    assert [len(stack.texts) for stack in stacks] == [6, 1] * 10
    assert torch.equal(torch.cat([stack.images.flatten(0, 1) for stack in stacks[:2]]), heads.data.images)
    many = list(stacked([batches[0]] * (2 * MOST_STACKED + 1)))
    assert [len(stack.texts) for stack in many] == [MOST_STACKED, MOST_STACKED, 1]
    few = list(stacked([batches[0]] * 5, directions=10**5))
    assert [len(stack.texts) for stack in few] == [2, 2, 1]
    assert list(stacked([])) == []


def test_a_small_matrix_is_positive_where_single_precision_would_not_be() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 8, generator=g)
    params = {"image.weight": torch.eye(8), "text.weight": torch.eye(8)}
    params["text.weight"] -= (1 - 1e-4) * y[:1].mT @ y[:1] / y[0].square().sum()  # the first text is nearly lost
    given = Batch(x, y, torch.arange(40), torch.arange(40))
    objective = Objective(embed, 100.0, 0.3, dict(params), 40, linear=True)
    largest = float(dense_matrix(GaussNewton(objective, params, lambda: [given])).diagonal().max())
    assert largest > 1e8
    curvature = from_products(
        "gauss_newton", objective, params, lambda: [given], damping=0.0, scope="heads", method="exact"
    )
    assert isinstance(curvature, Dense)
    assert float(torch.linalg.eigvalsh(curvature.H)[0]) == pytest.approx(objective.ridge(), rel=1e-3)
