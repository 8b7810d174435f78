"""Whether the large parts of a job fit into memory, said before anything runs: the curvature that it names, and what
its baselines need of one."""

from collections.abc import Callable
from functools import partial

import torch

from ecif.curvature.memory import Shapes, ekfac_bytes, groups_bytes, projection_bytes
from ecif.methods.magic import magic_bytes
from ecif.objective import LOGIT_BIAS, LOGIT_SCALE
from store.errors import InvalidError
from store.job_phases import baselines, inverts_curvature
from store.magic import check_magic_size
from store.settings import GiB
from store.specification import JobSpec
from worker.analysis.checkpoints import FIELD, named_checkpoints
from worker.analysis.job_view import JobView
from worker.analysis.models import device_of, job_embedder, job_model, memory_of
from worker.attempts.task import Task

_SMALLER_CURVATURE = "gauss_newton needs a few directions only, identity none; or take objective.scope heads or lora"
_OF_CURVATURE: dict[str, tuple[Callable[[Shapes], int], str]] = {
    "ekfac": (ekfac_bytes, _SMALLER_CURVATURE),
    "projected": (projection_bytes, _SMALLER_CURVATURE),
}
_OF_METHOD: dict[str, tuple[Callable[[Shapes], int], str]] = {
    "ekfac_if": (ekfac_bytes, "leave it out, or take objective.scope heads or lora"),
    "trak": (projection_bytes, "leave it out, or take objective.scope heads or lora"),
    "neighbour_influence": (groups_bytes, "leave it out, or take objective.scope heads or lora"),
}


def check_memory(task: Task, view: JobView, spec: JobSpec, pairs: int) -> None:
    """Raise unless what the job inverts fits into the memory of this worker's device, or of its like.

    Raises:
        InvalidError: naming the field, what it would take, and what to use instead.
    """
    curvature = [spec.influence.curvature] if inverts_curvature(spec) else []
    parts = [("influence.curvature", str(name), *_OF_CURVATURE[name]) for name in curvature if name in _OF_CURVATURE]
    named = [*baselines(spec), *(["neighbour_influence"] if _solves_for_groups(spec) else [])]
    parts += [("methods", str(name), *_OF_METHOD[name]) for name in named if name in _OF_METHOD]
    if checkpoints := _of_checkpoints(spec):
        parts.append(checkpoints)
    magical = "magic" in baselines(spec)
    if magical:
        parts.append(("methods", "magic", partial(_magic_bytes, spec, pairs), "lower fit.epochs, or leave it out"))
    if not parts:
        return  # what gauss_newton and hessian write out is bounded as it is, and no model is loaded here
    shapes = _shapes(task, view, spec)
    room = memory_of(device_of(task.settings))
    if magical:
        check_magic_size(spec, pairs, _weights(shapes))
    for field, name, needed, instead in parts:
        if (size := needed(shapes)) > room:
            raise InvalidError(
                "too_large_for_memory",
                f"{name} of {_weights(shapes):,} weights takes about {size / GiB:,.1f} GiB, and this worker has "
                f"{room / GiB:,.1f} GiB: {instead}",
                field,
            )


def _solves_for_groups(spec: JobSpec) -> bool:
    """Whether a job solves for as many directions of whole towers as there are groups. Those of heads are small."""
    return "neighbour_influence" in spec.methods and spec.task != "traceback" and spec.objective.scope != "heads"


def _of_checkpoints(spec: JobSpec) -> tuple[str, str, Callable[[Shapes], int], str] | None:
    """TracIn over checkpoints of whole towers: a gradient of each; and of the job's own model and of one checkpoint the
    weights twice, as they are loaded and as they are differentiated by. Heads are small."""
    named = named_checkpoints(spec)
    if not named or spec.objective.scope == "heads" or "tracin" not in spec.methods:
        return None

    def needed(shapes: Shapes) -> int:
        return 4 * (len(named) + 4) * _weights(shapes)

    name = f"tracin over {len(named)} checkpoints"
    return FIELD, name, needed, "name fewer, or take objective.scope heads"


def _magic_bytes(spec: JobSpec, pairs: int, shapes: Shapes) -> int:
    """The states of its fit that are held at once, and all features, in float64."""
    assert spec.fit is not None  # noqa: S101  refused when the job came in
    steps = (spec.fit.epochs or 1) * spec.objective.partitions * -(-pairs // spec.objective.batch_size)
    wide = sum(shape[-1] for shape in shapes.values() if len(shape) == 2)
    return magic_bytes(_weights(shapes), steps) + 8 * pairs * spec.objective.partitions * wide


def _weights(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _shapes(task: Task, view: JobView, spec: JobSpec) -> Shapes:
    """Of the weights that the job trains; a model is loaded for them, on the CPU."""
    cpu = torch.device("cpu")
    embedder = job_embedder(spec, job_model(task, spec, cpu), view.dataset.width, cpu)
    shapes = {name: tuple(tensor.shape) for name, tensor in embedder.parameters.items()}
    return shapes | ({LOGIT_SCALE: (), LOGIT_BIAS: ()} if spec.objective.train_temperature else {})
