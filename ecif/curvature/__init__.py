"""Curvature: one interface, several solvers (`docs/design.md`, section 4)."""

from ecif.curvature.base import Curvature, Identity, Matrix
from ecif.curvature.dense import Dense, dense_matrix
from ecif.curvature.diagonal import Diagonal
from ecif.curvature.ekfac import Ekfac
from ecif.curvature.gauss_newton import GaussNewton
from ecif.curvature.hessian import Hessian
from ecif.curvature.projected import Projected, ProjectedBatch, project_batch
from ecif.solve.solution import Solution

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
