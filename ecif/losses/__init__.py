"""The losses that a model may be trained with, as functions of the logits of one batch (`docs/design.md`, 1 and 2)."""

from ecif.losses.base import Loss
from ecif.losses.sigmoid import Sigmoid
from ecif.losses.softmax import Softmax

SOFTMAX = Softmax()
SIGMOID = Sigmoid()

__all__ = ["SIGMOID", "SOFTMAX", "Loss", "Sigmoid", "Softmax"]
