"""Real refits with the same seed: the same schedule over the same batches without some pairs, many sets at a time.

Pairs are deleted by −1e300 in the denominators, as in `removals`: no code of `ecif.roles` nor of `ecif.methods.magic`,
which is what they are to judge.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from benchmarks.removals import left_loss
from benchmarks.worlds import World
from ecif.fit.adam import Adam
from ecif.fit.scheduled import ScheduledFit
from ecif.parameters import flatten


def retrained(world: World, fit: ScheduledFit, subsets: Tensor) -> Tensor:
    """(m, P), where the fit ends without each of (m, n) bool subsets."""
    with torch.no_grad():
        opening = flatten(fit.start).expand(len(subsets), -1).clone()
        now, prior = Adam.start(opening), fit.prior()
        for step in range(fit.steps):
            batch = fit.batch(step)
            slope = grad(partial(left_loss, world, fit.start, batch, None))
            gradient = vmap(slope)(now.theta, subsets[:, batch.image_group]) + fit.pull * (now.theta - prior)
            now = now.step(gradient, fit.rate(step), fit.schedule.root)
    return now.theta
