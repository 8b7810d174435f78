"""Curvature: one interface, several solvers (design section 5)."""

from ecif.curvature.base import Curvature, Matrix
from ecif.curvature.dense import Dense, dense_matrix
from ecif.curvature.diagonal import Diagonal
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.gauss_newton import GaussNewton
from ecif.curvature.hessian import Hessian
from ecif.curvature.identity import Identity
from ecif.curvature.projected import Projected, ProjectedBatch, project_batch
from ecif.solution import Solution

__all__ = [
    "Curvature",
    "Dense",
    "Diagonal",
    "Ekfac",
    "GaussNewton",
    "Hessian",
    "Identity",
    "Matrix",
    "Projected",
    "ProjectedBatch",
    "Solution",
    "dense_matrix",
    "project_batch",
]
