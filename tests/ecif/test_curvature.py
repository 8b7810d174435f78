"""Every curvature × scope × precision against a dense truth that is computed from the definition, in float64.

One suite, inherited by a class for each curvature, on an open_clip model of a few hundred weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from open_clip import CLIP
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import Tensor

from ecif import (
    Batch,
    Curvature,
    Dense,
    Diagonal,
    Ekfac,
    GaussNewton,
    Hessian,
    Identity,
    Matrix,
    Objective,
    Params,
    Projected,
    Solution,
    cut_batches,
    flatten,
    forward_mode,
    plan_batches,
    unflatten,
)
from ecif.objective import LOGIT_SCALE, in_bfloat16, starting_logit_scale
from encoders.loaded_model import LoadedModel

CONFIG = {
    "embed_dim": 3,
    "vision_cfg": {"image_size": 4, "patch_size": 2, "width": 4, "layers": 1, "head_width": 2, "mlp_ratio": 1.0},
    "text_cfg": {"context_length": 3, "vocab_size": 8, "width": 4, "heads": 2, "layers": 1, "mlp_ratio": 1.0},
}
PAIRS, BATCH, PARTITIONS, SCALE, L2 = 8, 5, 2, 3.0, 1.0
SCOPES = ("heads", "heads and temperature", "lora", "all")


@dataclass(frozen=True)
class Precision:
    """How a curvature is computed, and how far its solution may then lie from the true one.

    solve: the relative residual that an iterative solver is asked for. off: ‖x − truth‖ / ‖truth‖ that is allowed.
    """

    device: str
    dtype: torch.dtype
    solve: float
    off: float
    tf32: bool = False


CPU = {
    "float64": Precision("cpu", torch.float64, solve=1e-8, off=1e-7),
    "float32": Precision("cpu", torch.float32, solve=1e-4, off=1e-3),
    "bfloat16": Precision("cpu", torch.bfloat16, solve=3e-2, off=0.1),  # weights, too
}
CUDA = {
    **{f"{name} on a GPU": replace(precision, device="cuda") for name, precision in CPU.items()},
    "tf32 on a GPU": Precision("cuda", torch.float32, solve=5e-3, off=2e-2, tf32=True),
}


@pytest.fixture(
    params=[*CPU.values(), *(pytest.param(precision, marks=pytest.mark.cuda) for precision in CUDA.values())],
    ids=[*CPU, *CUDA],
)
def precision(request: pytest.FixtureRequest) -> Iterator[Precision]:
    """Each precision in turn, PyTorch being told how to multiply float32."""
    backends: Any = torch.backends  # without types there
    before = backends.fp32_precision
    backends.fp32_precision = "tf32" if request.param.tf32 else "ieee"
    yield request.param
    backends.fp32_precision = before


class FewWords:
    """A tokenizer for a vocabulary of eight, the last of which ends a text."""

    context_length = 3

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        return torch.tensor([[1, 2, 7] + [0] * ((context_length or 3) - 3)] * len(texts))


@dataclass(frozen=True)
class Trained:
    """What is curved: an objective at a point, and its batches."""

    objective: Objective
    params: Params
    passes: tuple[Batch, ...]

    def batches(self) -> tuple[Batch, ...]:
        return self.passes

    @property
    def size(self) -> int:
        return sum(weight.numel() for weight in self.params.values())


def trained(scope: str, device: str, dtype: torch.dtype) -> Trained:
    """The same pairs and the same weights, whatever the device and the dtype (of the frozen weights, too)."""
    torch.manual_seed(0)
    clip = CLIP(**copy.deepcopy(CONFIG)).to(device, dtype)
    model = LoadedModel(clip, CONFIG, merge_preprocess_dict(asdict(PreprocessCfg()), {"size": 4}), FewWords())
    g = torch.Generator().manual_seed(2)  # LayerNorm over four numbers curves other draws wildly
    images = torch.randint(0, 256, (PAIRS, 3, 4, 4), generator=g, dtype=torch.uint8).to(device)
    texts = torch.cat([torch.randint(0, 7, (PAIRS, 2), generator=g), torch.full((PAIRS, 1), 7)], 1).to(device)
    if scope.startswith("heads"):
        embedder = model.heads()
        images, texts = model.tower_features(images, texts)
    else:
        embedder = model.lora(rank=1, alpha=1.0, seed=1) if scope == "lora" else model.full()
    prior = dict(embedder.parameters)
    if "temperature" in scope:
        prior[LOGIT_SCALE] = torch.tensor(starting_logit_scale(SCALE)).to(device, dtype)
    # Not where it starts: an adapter whose B is zero has no curvature along A.
    params = {name: prior[name] + 0.2 * torch.randn(prior[name].shape, generator=g).to(prior[name]) for name in prior}
    number = torch.arange(PAIRS)
    caption = torch.where(number == 5, 0, number)  # one caption twice
    plan = plan_batches(PAIRS, BATCH, PARTITIONS, 0)
    cuts = [cut for row in plan for cut in cut_batches(row, BATCH)]
    passes = tuple(Batch(images[c], texts[c], caption[c].to(device), number[c].to(device)) for c in cuts)
    return Trained(Objective(embedder, SCALE, L2, prior, PAIRS, PARTITIONS), params, passes)


@dataclass(frozen=True)
class Truth:
    """(P, P) float64, both without regulariser and averaged over the partitions."""

    hessian: Tensor
    gauss_newton: Tensor


@cache
def truth_of(scope: str) -> Truth:
    """∇²L and Jᵀ(∇²_S L)J by torch.func from the definition of the loss, no code of `ecif` but that of flat vectors."""
    world = trained(scope, "cpu", torch.float64)
    theta, like = flatten(world.params), world.params
    hessian = torch.zeros(world.size, world.size, dtype=torch.float64)
    gauss_newton = torch.zeros_like(hessian)

    def loss(S: Tensor) -> Tensor:
        return -(S.log_softmax(1) + S.log_softmax(0)).diagonal().sum()

    for batch in world.passes:
        same = batch.caption_group[:, None] == batch.caption_group[None, :]
        hidden = same & ~torch.eye(batch.size, dtype=torch.bool)

        def similarity(flat: Tensor, batch: Batch = batch, hidden: Tensor = hidden) -> Tensor:
            params = unflatten(flat, like)
            text, image = world.objective.embed(params, batch.images, batch.texts)
            cosine = torch.nn.functional.normalize(text) @ torch.nn.functional.normalize(image).mT
            scale = params[LOGIT_SCALE].exp() if LOGIT_SCALE in params else SCALE
            return (scale * cosine).masked_fill(hidden, -1e30)

        def of_theta(flat: Tensor, similarity: Callable[[Tensor], Tensor] = similarity) -> Tensor:
            return loss(similarity(flat))

        with forward_mode():
            # Not `torch.func.hessian`: forwards over LayerNorm's backward torch is wrong (pytorch/pytorch#196700).
            hessian += torch.func.jacrev(torch.func.grad(of_theta))(theta)
            J = torch.func.jacrev(similarity)(theta).flatten(0, 1)
            C = torch.func.hessian(loss)(similarity(theta)).reshape(len(J), len(J))
        gauss_newton += J.mT @ C @ J
    assert torch.allclose(hessian, hessian.mT, rtol=0, atol=1e-9 * float(hessian.abs().max()))
    return Truth(hessian / PARTITIONS, gauss_newton / PARTITIONS)


class CurvatureSuite:
    """What every curvature must do. A class that inherits it says how it is built and what its dense inverse is."""

    damping = 0.5

    def build(self, world: Trained, precision: Precision) -> Curvature:
        raise NotImplementedError

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        """(P, P) float64 on the CPU: what solve multiplies by."""
        raise NotImplementedError

    def damped(self, matrix: Tensor) -> Tensor:
        return matrix + PAIRS * (L2 + self.damping) * torch.eye(len(matrix), dtype=torch.float64)

    @pytest.mark.parametrize("scope", SCOPES)
    def test_it_solves_as_the_dense_matrix_does(self, scope: str, precision: Precision) -> None:
        world = trained(scope, precision.device, precision.dtype)
        built = self.build(world, precision)
        rhs = torch.randn(3, world.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        rhs[1] = 0
        solution = built.solve(rhs.to(precision.device))
        x = solution.x.cpu()
        expected = rhs @ self.inverse(truth_of(scope), built, world)
        off = (x - expected).norm(dim=1)[::2] / expected.norm(dim=1)[::2]
        assert float(off.max()) <= precision.off
        assert not bool(x[1].any())
        assert solution.converged
        assert float(solution.relative_residual.max()) <= precision.solve
        self.check_eigenvalues(solution, built, truth_of(scope), precision)

    def check_eigenvalues(self, solution: Solution, built: Any, truth: Truth, precision: Precision) -> None:
        """For those that tell a range."""


class IterativeSuite(CurvatureSuite):
    """Products with vectors, solved by conjugate gradients."""

    kind: type[Matrix]

    def matrix(self, truth: Truth) -> Tensor:
        raise NotImplementedError

    def build(self, world: Trained, precision: Precision) -> Matrix:
        given = (world.objective, world.params, world.batches)
        return self.kind(*given, damping=self.damping, tolerance=precision.solve)

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        return torch.linalg.inv(self.damped(self.matrix(truth)))

    def check_eigenvalues(self, solution: Solution, built: Any, truth: Truth, precision: Precision) -> None:
        eigenvalues = torch.linalg.eigvalsh(self.damped(self.matrix(truth)))
        assert solution.eigenvalue_range is not None
        low, high = solution.eigenvalue_range
        slack = 1 + precision.off
        assert float(eigenvalues[0]) / slack <= low < high <= float(eigenvalues[-1]) * slack
        assert high > 0.8 * float(eigenvalues[-1])


class TestHessian(IterativeSuite):
    kind = Hessian
    damping = 40.0  # the point is no minimum, and bfloat16 resolves no more

    def matrix(self, truth: Truth) -> Tensor:
        return truth.hessian


class TestGaussNewton(IterativeSuite):
    kind = GaussNewton

    def matrix(self, truth: Truth) -> Tensor:
        return truth.gauss_newton


class TestDense(CurvatureSuite):
    """Gauss-Newton written out by its products with the identity."""

    def build(self, world: Trained, precision: Precision) -> Dense:
        return Dense.of(GaussNewton(world.objective, world.params, world.batches, damping=self.damping))

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        return torch.linalg.inv(self.damped(truth.gauss_newton))


class TestProjected(CurvatureSuite):
    """Gauss-Newton inside the subspace that the rows of Π span."""

    def build(self, world: Trained, precision: Precision) -> Projected:
        given = (world.objective, world.params, world.batches)
        return Projected.of(*given, damping=self.damping, side=2, seed=1)

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        rows = built.projection.rows.cpu()
        inside: Tensor = torch.linalg.inv(rows @ self.damped(truth.gauss_newton) @ rows.mT)
        return rows.mT @ inside @ rows


class SampledSuite(CurvatureSuite):
    """Built from sampled labels: it solves with what it represents, and that has the trace of Gauss-Newton."""

    def represented(self, built: Any, world: Trained) -> Tensor:
        """(P, P) float64 on the CPU, written out from its parts."""
        raise NotImplementedError

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        represented = self.represented(built, world)
        assert float(represented.trace()) == pytest.approx(float(self.damped(truth.gauss_newton).trace()), rel=0.1)
        return torch.linalg.inv(represented)


class TestEkfac(SampledSuite):
    def build(self, world: Trained, precision: Precision) -> Ekfac:
        return Ekfac.of(world.objective, world.params, world.batches, damping=self.damping, draws=32)

    def represented(self, built: Any, world: Trained) -> Tensor:
        """One block (Q_E ⊗ Q_D) diag(Λ) (Q_E ⊗ Q_D)ᵀ for every linear map, a diagonal for the rest."""
        blocks = []
        for name, part in unflatten(
            built.eigenvalues.cpu(), {n: w.double().cpu() for n, w in world.params.items()}
        ).items():
            eigenvalues = torch.diag(part.flatten())
            if name in built.bases.left:
                Q = torch.kron(built.bases.left[name].cpu(), built.bases.right[name].cpu())
                eigenvalues = Q @ eigenvalues @ Q.mT
            blocks.append((name, eigenvalues))
        assert {name for name, weight in world.params.items() if weight.ndim == 2} == set(built.bases.left)
        return torch.block_diag(*[block for _, block in sorted(blocks, key=lambda block: block[0])])


class TestDiagonal(SampledSuite):
    def build(self, world: Trained, precision: Precision) -> Diagonal:
        return Diagonal.of(world.objective, world.params, world.batches, damping=self.damping, probes=32)

    def represented(self, built: Any, world: Trained) -> Tensor:
        return torch.diag(built.diagonal.cpu())


class TestIdentity(CurvatureSuite):
    def build(self, world: Trained, precision: Precision) -> Identity:
        return Identity()

    def inverse(self, truth: Truth, built: Any, world: Trained) -> Tensor:
        return torch.eye(world.size, dtype=torch.float64)


@pytest.mark.parametrize("kind", [Ekfac, Projected, Diagonal])
def test_what_cannot_be_inverted_is_refused(kind: Any) -> None:
    world = trained("heads", "cpu", torch.float64)
    with pytest.raises(ValueError, match="l2 or damping above 0"):
        kind.of(replace(world.objective, l2=0.0), world.params, world.batches, damping=0.0)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_adam_s_gradient_in_bfloat16_is_near_the_true_one(scope: str, device: str) -> None:
    """What a fit on a GPU steps along: autocast towers, everything else float32."""
    exact, world = trained(scope, "cpu", torch.float64), trained(scope, device, torch.float32)
    coarse = replace(world.objective, embed=in_bfloat16(world.objective.embed))
    for batch, same in zip(world.passes, exact.passes, strict=True):
        loss, gradient = coarse.batch_value_and_gradient(world.params, batch)
        value, truth = exact.objective.batch_value_and_gradient(exact.params, same)
        assert loss.dtype == gradient.dtype == torch.float32
        assert float(loss) == pytest.approx(float(value), rel=0.02)
        off = float((gradient.cpu() - truth).norm() / truth.norm())
        assert 1e-5 < off < 0.1
