"""`python run.py METHOD problem.pt answer.json`: the scores of all pairs by one method of one package, and its time."""

import importlib
import json
import resource
import sys
from pathlib import Path

METHODS = {
    "TRAK (traker)": ("with_traker", "traker"),
    "TRAK (dattri)": ("with_dattri", "trak"),
    "IF, conjugate gradients (dattri)": ("with_dattri", "conjugate_gradients"),
    "EK-FAC (dattri)": ("with_dattri", "ekfac"),
    "TracIn (dattri)": ("with_dattri", "tracin"),
    "EK-FAC (kronfluence)": ("with_kronfluence", "ekfac"),
    "empirical Fisher (LogIX)": ("with_logix", "empirical_fisher"),
}


def main(method, given, answer):
    """Scores are in the order of the pairs' numbers; their sign is the package's, on which influence depends."""
    sys.path.insert(0, str(Path(__file__).parent))
    import torch
    from problem import Problem

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, function = METHODS[method]
    compute = getattr(importlib.import_module(module), function)
    problem = Problem.load(given)
    begin = _processor_time()
    scores = compute(problem).detach().double().flatten()
    seconds = _processor_time() - begin
    by_pair = torch.zeros_like(scores)
    by_pair[problem.places] = scores
    Path(answer).write_text(json.dumps({"scores": by_pair.tolist(), "seconds": seconds}))


def _processor_time():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
