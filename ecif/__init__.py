"""Influence of every image-text pair on a contrastive model (arXiv 2411.11667): the mathematics, on torch alone.

====================================  =====================================================
section of ``design/ecif.md``          files
====================================  =====================================================
1 the loss                            batch, batches, similarity, objective, parameters
2 what leaves the loss                roles
3 the influence functions             scoring, self_influence, relative
4.5 removal without retraining        removal
5 curvature                           curvature/, conjugate_gradients, lanczos, damping, projection
5 the baselines                       methods/
6 how to compute it fast              linearise, role_derivatives, forward_mode, fit (adam, lbfgs, line_search,
                                      mixed_precision)
7 from scores to decisions            decisions, noise_rate
8 agreement with refits               datamodelling
====================================  =====================================================

Sign, everywhere: ``IS_n = w·∇Pos_n + w·∇Neg_n`` with ``w = H⁻¹∇L_val`` is the change of the mean validation loss
when pair n is removed; negative = harmful, positive = valuable.
"""

from ecif.batch import Batch
from ecif.batches import cut_batches, plan_batches
from ecif.conjugate_gradients import OnState, State, conjugate_gradients
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
from ecif.damping import DampingChoice, Spectrum, choose_damping, spectrum
from ecif.datamodelling import DatamodellingScore, datamodelling_score, random_subsets
from ecif.decisions import (
    Discoveries,
    benjamini_hochberg,
    calibration_warning,
    conformal_p_values,
    smallest_flaggable,
)
from ecif.errors import NegativeCurvature, NotConverged
from ecif.fit import OnEpoch, fit
from ecif.fit_settings import FitResult, FitSettings
from ecif.forward_mode import forward_mode
from ecif.linearise import pull, push
from ecif.noise_rate import NoiseEstimate, estimate_noise_rate
from ecif.objective import Batches, Embed, Objective
from ecif.parameters import Params, flatten, unflatten
from ecif.projection import Projection
from ecif.queries import QueryLoss, candidate_scores, query_gradients, query_losses
from ecif.relative import relative_influence, relative_influence_from_products, role_gradients
from ecif.removal import removal_gradient, score_removals
from ecif.role_derivatives import negative_derivative, positive_derivative
from ecif.roles import Negative, negative, positive, removal_loss
from ecif.scoring import BatchScores, score_batch
from ecif.self_influence import (
    SelfInfluence,
    exact_self_influence,
    pair_gradients,
    probe_rhs,
    probed_self_influence,
)
from ecif.similarity import EXCLUDED, exclude, false_negatives, normalise, similarity_matrix
from ecif.solution import Solution
from ecif.suspicion import fractional_ranks, fuse_ranks

__all__ = [
    "EXCLUDED",
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
    "FitResult",
    "FitSettings",
    "GaussNewton",
    "Hessian",
    "Identity",
    "Matrix",
    "Negative",
    "NegativeCurvature",
    "NoiseEstimate",
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
    "benjamini_hochberg",
    "calibration_warning",
    "candidate_scores",
    "choose_damping",
    "conformal_p_values",
    "conjugate_gradients",
    "cut_batches",
    "datamodelling_score",
    "dense_matrix",
    "estimate_noise_rate",
    "exact_self_influence",
    "exclude",
    "false_negatives",
    "fit",
    "flatten",
    "forward_mode",
    "fractional_ranks",
    "fuse_ranks",
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
    "relative_influence",
    "relative_influence_from_products",
    "removal_gradient",
    "removal_loss",
    "role_gradients",
    "score_batch",
    "score_removals",
    "similarity_matrix",
    "smallest_flaggable",
    "spectrum",
    "unflatten",
]
