"""The whole: predicted against real change of the validation loss when random subsets leave (design section 8)."""

from functools import partial

import torch

from ecif import FitSettings, GaussNewton, Hessian, Identity, fit, push, removal_loss


def ranks(x):
    return x.argsort().argsort().double()


def spearman(a, b):
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


def test_influence_predicts_what_a_refit_does(make_world):
    world = make_world(n=80, batch_size=20, partitions=1, l2=1.0, seed=3)
    validation = make_world(n=40, batch_size=20, seed=3)
    validation.data = world.take(torch.arange(40))  # same distribution, other noise
    g = torch.Generator().manual_seed(9)
    noisy = validation.data
    validation.data = type(noisy)(
        noisy.images + torch.randn(40, 10, generator=g, dtype=torch.float64),
        noisy.texts + torch.randn(40, 10, generator=g, dtype=torch.float64),
        noisy.caption_group,
        noisy.image_group,
    )

    def validation_loss(params):
        return world.objective.validation_value_and_gradient(params, validation.batches(), 40)

    settings = FitSettings(epochs=600, adam_share=0.1, tolerance=1e-6)
    best = fit(world.objective, world.params, world.batches, settings)
    assert best.stationary
    base, gradient = validation_loss(best.params)

    subsets = [torch.randperm(80, generator=g)[:4] for _ in range(30)]
    real = []
    for removed in subsets:
        refit = fit(
            world.objective,
            best.params,
            lambda removed=removed: world.batches(without=removed),
            FitSettings(epochs=200, adam_share=0.0, tolerance=1e-4),
        )
        assert refit.stationary, (refit.epochs_done, refit.decrement_bound)
        real.append(validation_loss(refit.params)[0] - base)
    real = torch.tensor(real, dtype=torch.float64)

    def predicted(curvature):
        """w·∇ of what leaves the loss with each subset, the set form batch by batch."""
        w = curvature.solve(gradient[None]).x
        change = torch.zeros(len(subsets), dtype=torch.float64)
        for batch in world.batches():
            S, dS = push(world.objective, best.params, batch, w)
            for i, removed in enumerate(subsets):
                mask = torch.isin(batch.image_group, removed)  # images are distinct: the pair's index
                leaves = torch.func.jvp(partial(removal_loss, removed=mask), (S,), (dS[0],))[1]
                change[i] += leaves / world.partitions
        return change

    given = (world.objective, best.params, world.batches)
    exact = predicted(Hessian(*given))
    slope = float((exact * real).sum() / exact.square().sum())
    newton, plain = predicted(GaussNewton(*given)), predicted(Identity())
    assert spearman(exact, real) > 0.95
    assert 0.8 < slope < 1.25
    assert spearman(newton, real) > 0.85
    assert spearman(exact, real) > spearman(plain, real) + 0.05
