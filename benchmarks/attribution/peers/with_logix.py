"""LogIX 0.1.1: the inverse of the second moment of the examples' gradients, a block for each head."""

import tempfile
from pathlib import Path

import torch
from logix import LogIX
from problem import example_losses
from torch.utils.data import DataLoader


def empirical_fisher(problem):
    """Without its low-rank projection: the heads are small."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(f"root_dir: {folder}\n")
        run = LogIX("heads", str(config))
        run.watch(problem.model)
        run.setup({"grad": ["log", "covariance"]})
        train = _gradients(run, problem, problem.train())
        run.finalize()
        run.setup({"grad": ["log"]})
        run.eval()
        queries = _gradients(run, problem, DataLoader(problem.queries, batch_size=1, shuffle=False))
        found = run.influence.compute_influence(queries, train, hessian="raw", damping=problem.ridge)
    return found["influence"].sum(0)


def _gradients(run, problem, loader):
    """(ids, gradients by head) of all examples of a loader."""
    ids, parts = [], []
    for texts, images, excluded, place in loader:
        names = [str(len(ids) + at) for at in range(len(place))]
        with run(data_id=names):
            problem.model.zero_grad()
            example_losses(problem.model(texts, images, excluded), place).sum().backward()
        _, log = run.get_log()
        parts.append({name: log[name]["grad"].detach().clone() for name in log})
        ids += names
    return ids, {name: {"grad": torch.cat([part[name] for part in parts])} for name in parts[0]}
