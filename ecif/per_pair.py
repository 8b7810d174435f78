"""What needs a solve for every pair, in closed form for two linear heads (`docs/design.md`, section 5).

With g_n = ∇(Pos_n + Neg_n) and H⁻¹ ≈ Σ_r G_r ⊗ A_r for each head (`curvature.kronecker`), of every pair of a batch:

    self-influence     g_nᵀ H⁻¹ g_n
    leave-one-out      the pair's loss where S is moved along J·H⁻¹g_n, to first order the weights without pair n

Of the softmax loss, the gradient of Pos_n + Neg_n in S is Σ_k W[k,n] e_k (e_n − p_k)ᵀ + Σ_k X[n,k] (e_n − q_k) e_kᵀ,
with p_k and q_k row k and column k of the two softmaxes, W and X the weights of the terms of the removed roles, and −1
on their diagonals for the pair's own term. At the un-normalised text k it is s/‖t_k‖ times z_n[k], the part across u_k

    W[k,n] (v_n − m_k) + [k = n] y_n − Σ_j q[k,j] X[n,j] v_j,      m_k = Σ_j p[k,j] v_j,   y_n = Σ_j X[n,j] v_j,

and likewise for images with the roles of rows and columns exchanged. Each of its terms depends on n through a vector of
the batch (v_n, y_n) or through a number. So with K = s² x A xᵀ / (‖t_k‖ ‖t_l‖) all Σ_l K[k,l] f·G z_n[l] wanted here
are products of (B, B) matrices, about as dear as S itself, and no gradient of a pair is ever formed.

The one negative of each row whose p may round to 1 has p (e_n − p̃_k) in place of p/(1 − p) (e_n − p_k), p̃ being the
softmax without it (`roles`): every row has two softmaxes, hence two m. The sigmoid loss has the weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ecif.batches import Batch
from ecif.curvature.base import Curvature
from ecif.curvature.kronecker import Terms
from ecif.heads import AtParams, Side
from ecif.linearise import push
from ecif.losses import Loss
from ecif.losses.base import RemovedTerms
from ecif.objective import Objective
from ecif.parameters import Params, row_dot
from ecif.roles import Negative, check_mode
from ecif.self_influence import pair_gradients


@dataclass(frozen=True)
class WithoutEach:
    """What each pair's leaving would do: self_influence, in units of the summed loss, and leave_one_out, the pair's own
    loss where the fit did not have it. (B,) each of one batch, (G, B) of G."""

    self_influence: Tensor
    leave_one_out: Tensor


@torch.no_grad()
def without_each(at: AtParams, terms: dict[str, Terms], loss: Loss, mode: Negative = "exact") -> WithoutEach:
    """Of all pairs of some batches, (G, B); the block of H between the heads is left out.

    terms: of `text` and of `image`. loss: of the logits at.S.

    Raises:
        ValueError: an unknown form of the negative role.
    """
    check_mode(mode)
    cosine = at.text.unit @ at.image.unit.mT
    rows, columns = loss.removed_terms(at.S, mode), loss.removed_terms(at.S.mT, mode)
    text = _head(at.text, at.image.unit, cosine, rows, columns, at.scale, terms["text"])
    image = _head(at.image, at.text.unit, cosine.mT, columns, rows, at.scale, terms["image"])
    row, column = text.own + image.others.mT, text.others + image.own.mT
    if at.excluded is not None:
        row, column = row.masked_fill(at.excluded, 0.0), column.masked_fill(at.excluded, 0.0)
    return WithoutEach((text.squared + image.squared).clamp(min=0.0), loss.moved_pair_loss(at.S, row, column))


def without_each_exactly(
    objective: Objective, params: Params, batch: Batch, curvature: Curvature, mode: Negative = "exact"
) -> WithoutEach:
    """Of all pairs of a batch, (B,), through their explicit gradients and a solve for each: for small models only."""
    gradients = pair_gradients(objective, params, batch, mode)
    moves = curvature.solve(gradients.double()).x
    S, dS = push(objective, params, batch, moves.to(gradients))
    row, column = dS.diagonal(dim1=0, dim2=1).mT, dS.diagonal(dim1=0, dim2=2)
    return WithoutEach(row_dot(gradients, moves), objective.loss.moved_pair_loss(S, row, column))


class _Moved(NamedTuple):
    """What one head does when pair n leaves: squared (G, B), its part of g_nᵀH⁻¹g_n; and how S moves with it,
    (G, B, B), its rows being those of the head: own[n] is row n, others[:, n] is column n."""

    squared: Tensor
    own: Tensor
    others: Tensor


def _head(
    side: Side, v: Tensor, cosine: Tensor, rows: RemovedTerms, columns: RemovedTerms, scale: float, terms: Terms
) -> _Moved:
    """Rows are of `side`, columns of the other tower, whose unit embeddings are v (G, B, E).

    z_n[k] = W[k,n] v_n + [k = n] y_n + Σ_f coefficients[f, n] f − Σ_j q[k,j] X[n,j] v_j, where for every k the f are
    u_k and the two m_k: (3, B) vectors. Y_n[k] below is Σ_l K[k,l] G z_n[l].
    """
    B = v.shape[-2]
    p, W_of = rows.softmax.flatten(-3, -2), rows.weights.flatten(-3, -2)  # (2B, B)
    q, X_of = columns.softmax.flatten(-3, -2).mT, columns.weights.flatten(-3, -2).mT  # (B, 2B)
    W, X = rows.weights.sum(-3), columns.weights.sum(-3).mT
    own = (X * cosine).sum(-1)
    along_u = W * cosine + torch.diag_embed(own) - _beside(q, cosine) @ X_of.mT
    along_u -= (rows.weights * (rows.softmax * cosine[..., None, :, :]).sum(-1, keepdim=True)).sum(-3)
    coefficients = -torch.cat([along_u, W_of], -2)  # (3B, B)

    u_and_v = torch.cat([side.unit, v], -2) @ terms.left
    x = (side.features @ terms.right) * (scale * side.inverse)
    f_Y, v_Y, own_Y, q_Y = (torch.zeros_like(part) for part in (coefficients, W, W, X_of))
    f_f = coefficients.new_zeros(*coefficients.shape[:-1], 3 * B)
    f_q, q_q = torch.zeros_like(f_f[..., : 2 * B]), torch.zeros_like(f_f[..., : 2 * B, : 2 * B])
    for along, across in zip(terms.along, terms.across, strict=True):
        K, gram = (x * across) @ x.mT, (u_and_v * along) @ u_and_v.mT
        u_v, v_v = gram[..., :B, B:], gram[..., B:, B:]
        f_v = torch.cat([u_v, p @ v_v], -2)  # (3B, B)
        f_u = torch.cat([gram[..., :B, :B], p @ u_v.mT], -2)
        K_W, K_q, y_v = K @ W, K @ q, X @ v_v
        # What meets n in the coefficients only is summed over r first.
        f_f += _tiled(K, torch.cat([f_u, f_v @ p.mT], -1))
        f_q += _tiled(K_q, torch.cat([f_v, f_v], -1))
        q_q += _tiled(v_v, q.mT @ K_q)
        f_Y += _tiled(K_W, f_v) + _tiled(K, f_v @ X.mT)
        z_v = (coefficients * f_v).view(*W.shape[:-2], 3, B, B).sum(-3) - q @ _beside(X_of, v_v).mT
        v_Y += v_v.diagonal(dim1=-2, dim2=-1)[..., None, :] * K_W + K * (X * v_v).sum(-1)[..., None, :] + K @ z_v
        own_Y += K_W.diagonal(dim1=-2, dim2=-1)[..., None] * v_v + K.diagonal(dim1=-2, dim2=-1)[..., None] * y_v
        own_Y += _beside(coefficients.mT, K) @ f_v - (K_q * X_of).view(*W.shape[:-1], 2, B).sum(-2) @ v_v
        q_Y += _beside((K_q.mT @ W).mT, v_v) + _beside(K_q, y_v)
    f_Y += f_f @ coefficients - f_q @ X_of.mT
    q_Y += (f_q.mT @ coefficients).mT - X_of @ q_q
    squared = (W * v_Y).sum(-2) + (X * own_Y).sum(-1) + (coefficients * f_Y).sum(-2) - (X_of * q_Y).sum(-1)
    u_Y = f_Y[..., :B, :]
    own_u = u_Y.diagonal(dim1=-2, dim2=-1)[..., None]
    return _Moved(squared, own_Y - cosine * own_u, v_Y - cosine * u_Y)


def _beside(wide: Tensor, factor: Tensor) -> Tensor:
    """wide (..., B, cB) times factor (..., B, B) beside itself."""
    *lead, B = factor.shape
    return (wide.reshape(*lead, -1, B) * factor[..., None, :]).view(wide.shape)


def _tiled(factor: Tensor, large: Tensor) -> Tensor:
    """large (..., aB, cB) times factor (..., B, cB) or (..., B, B), over and over."""
    *lead, B, wide = factor.shape
    down = large.reshape(*lead, -1, B, large.shape[-1] // wide, wide)
    return (down * factor[..., None, :, None, :]).view(large.shape)
