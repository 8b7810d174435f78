"""Influence of every image-text pair on a contrastive model (arXiv 2411.11667): the mathematics, on torch alone.

========================================  ============================================================
section of ``docs/design.md``             files
========================================  ============================================================
1 the loss and its batches                batches, similarity, objective, parameters
2 what leaves the loss                    losses/, roles
3 influence functions                     scoring, neighbours, self_influence, over_partitions
4 curvature and damping                   curvature/, solve/
5 no per-pair gradients                   linearise, roles, scoring, per_pair, self_influence
6 the baselines                           methods/
7 from scores to decisions                detection/; embeddings: a whole job in one call
8 trace-back                              traceback
9 removal without retraining              scoring
10 the fit                                fit/
11 agreement with refits                  datamodelling
========================================  ============================================================

Sign, everywhere: ``IS_n = w·∇Pos_n + w·∇Neg_n`` with ``w = H⁻¹∇L_val`` is the change of the mean validation loss
when pair n is removed; negative = harmful, positive = valuable.
"""

from ecif.batches import Batch, cut_batches, plan_batches
from ecif.curvature import (
    Curvature,
    Dense,
    Diagonal,
    Ekfac,
    GaussNewton,
    Hessian,
    Identity,
    Matrix,
    Projected,
    ProjectedBatch,
    dense_matrix,
    project_batch,
)
from ecif.curvature.damping import DampingChoice, Spectrum, choose_damping, spectrum
from ecif.curvature.projection import Projection
from ecif.datamodelling import DatamodellingScore, datamodelling_score, random_subsets
from ecif.detection.conformal import Discoveries, clean_pairs_needed, conformal_p_values, discoveries
from ecif.detection.learned import Learned, learn_suspicion
from ecif.detection.noise_rate import estimate_noise_rate
from ecif.detection.suspicion import fractional_ranks
from ecif.embeddings import EmbeddingRanking, rank_embeddings
from ecif.fit import OnEpoch, fit
from ecif.fit.settings import FitResult, FitSettings
from ecif.linearise import forward_mode, pull, push
from ecif.losses import SIGMOID, SOFTMAX, Loss
from ecif.objective import Batches, Embed, Objective
from ecif.parameters import Params, flatten, unflatten
from ecif.roles import Negative, negative, negative_derivative, positive, positive_derivative, removal_loss
from ecif.scoring import BatchScores, removal_gradient, score_batch, score_removals
from ecif.self_influence import (
    SelfInfluence,
    exact_self_influence,
    pair_gradients,
    probe_rhs,
    probed_self_influence,
)
from ecif.similarity import EXCLUDED, exclude, false_negatives, normalise, similarity_matrix
from ecif.solve.conjugate_gradients import conjugate_gradients
from ecif.solve.solution import NegativeCurvature, NotConverged, OnState, Solution, State
from ecif.traceback import (
    QueryLoss,
    candidate_scores,
    query_gradients,
    query_losses,
    relative_influence,
    relative_influence_from_products,
    role_gradients,
)

__all__ = [
    "EXCLUDED",
    "SIGMOID",
    "SOFTMAX",
    "Batch",
    "BatchScores",
    "Batches",
    "Curvature",
    "DampingChoice",
    "DatamodellingScore",
    "Dense",
    "Diagonal",
    "Discoveries",
    "Ekfac",
    "Embed",
    "EmbeddingRanking",
    "FitResult",
    "FitSettings",
    "GaussNewton",
    "Hessian",
    "Identity",
    "Learned",
    "Loss",
    "Matrix",
    "Negative",
    "NegativeCurvature",
    "NotConverged",
    "Objective",
    "OnEpoch",
    "OnState",
    "Params",
    "Projected",
    "ProjectedBatch",
    "Projection",
    "QueryLoss",
    "SelfInfluence",
    "Solution",
    "Spectrum",
    "State",
    "candidate_scores",
    "choose_damping",
    "clean_pairs_needed",
    "conformal_p_values",
    "conjugate_gradients",
    "cut_batches",
    "datamodelling_score",
    "dense_matrix",
    "discoveries",
    "estimate_noise_rate",
    "exact_self_influence",
    "exclude",
    "false_negatives",
    "fit",
    "flatten",
    "forward_mode",
    "fractional_ranks",
    "learn_suspicion",
    "negative",
    "negative_derivative",
    "normalise",
    "pair_gradients",
    "plan_batches",
    "positive",
    "positive_derivative",
    "probe_rhs",
    "probed_self_influence",
    "project_batch",
    "pull",
    "push",
    "query_gradients",
    "query_losses",
    "random_subsets",
    "rank_embeddings",
    "relative_influence",
    "relative_influence_from_products",
    "removal_gradient",
    "removal_loss",
    "role_gradients",
    "score_batch",
    "score_removals",
    "similarity_matrix",
    "spectrum",
    "unflatten",
]
