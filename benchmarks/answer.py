"""What an answer costs: whole default jobs through the service, as ratios to what no job can do without.

Of embeddings that is F, a plain forward pass of two square heads over all pairs; of images the pass through the model.
All in processor time of one thread, so that whoever else is busy changes little: threads that wait for each other
count as busy.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Final

import torch
from torch import Tensor

from benchmarks.detection.cells import FULL, TOY, Cell
from benchmarks.detection.measure import scores_of
from benchmarks.detection.setting import Setting, embedding_archive
from benchmarks.detection.training import Embedded, as_file, new_model
from benchmarks.one_process import Job, OneProcess, one_process
from benchmarks.sections import Json, Say, Size
from ecif.detection.calibrator import auroc
from migrations.upgrade import upgrade
from standalone import servers

_WIDTH: Final = 512
_WRONG: Final = 20
"""One pair of so many is wrong."""


def run(size: Size, say: Say) -> Json:
    """A job on embeddings, and one on pictures through a small model."""
    full, before, threads = size == "full", logging.root.manager.disable, torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # that nobody hears the doorbell: the worker needs none
    try:
        with tempfile.TemporaryDirectory(prefix="ecif-bench-") as folder, servers.postgres(Path(folder)) as url:
            upgrade(url)
            home = Path(folder) / "home"
            home.mkdir()
            with one_process(url, home) as service:
                results: Json = {"embeddings": [], "pictures": {}}
                for pairs in (10_000, 100_000) if full else (200,):
                    results["embeddings"].append(_of_embeddings(service, pairs, _WIDTH if full else 16))
                    say(f"{pairs:,} embeddings: {results['embeddings'][-1]['ratio']:.0f} F")
                results["pictures"] = _of_pictures(service, full)
                say(f"pictures: {results['pictures']['ratio']:.2f} passes through the model")
    finally:
        logging.disable(before)
        torch.set_num_threads(threads)
    return results


def _of_embeddings(service: OneProcess, pairs: int, width: int) -> Json:
    images, texts, wrong = _spectrum_of_a_model(pairs, width)
    dataset = service.dataset("embeddings.zip", embedding_archive(Embedded(images, texts), None))
    before = _unit(pairs, width)
    job = service.job({"task": "misalignment", "dataset": dataset})
    unit = min(before, _unit(pairs, width))
    seconds = job.worked.processor_seconds
    return {
        "pairs": pairs,
        "width": width,
        "unit_seconds": unit,
        "phases": {phase: taken / unit for phase, taken in seconds.items()},
        "ratio": sum(seconds.values()) / unit,
        "auroc": auroc(scores_of(job)["suspicion"], wrong),
    }


def _spectrum_of_a_model(pairs: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images and texts (n, E) that agree but for noise, with a spectrum that decays as those of models do, and which
    (n,) have another's text: one of twenty."""
    g = torch.Generator().manual_seed(0)
    decay = torch.arange(1, width + 1).float().pow(-0.6)
    meaning, *noise = (torch.randn(pairs, width, generator=g) * decay for _ in range(3))
    images, texts = (meaning + 0.3 * part for part in noise)
    wrong = torch.randperm(pairs, generator=g) < pairs // _WRONG
    texts[wrong] = texts[wrong].roll(1, 0)
    return images, texts, wrong


def _unit(pairs: int, width: int) -> float:
    """Processor seconds of F."""
    rows, head = torch.randn(pairs, width), torch.randn(width, width)
    rows @ head
    begin = process_time()
    for _ in range(4):
        rows @ head
    return (process_time() - begin) / 2


def _of_pictures(service: OneProcess, full: bool) -> Json:
    """Of scenes through a small model, whose weights are of no training: a fit is longest there."""
    scale = replace(FULL, pairs=3400) if full else TOY
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        model = new_model(scale.architecture, 0)
        weights.write_bytes(as_file(model, model.full().parameters))
        setting = Setting.of(Cell("scenes", "shuffled", 0.2, "transferred", 0), scale, service, weights)
        job: Job = setting.job()
    seconds = job.worked.processor_seconds
    encode = seconds["encode"]
    return {
        "pairs": scale.pairs,
        "encode_seconds": encode,
        "phases": {phase: taken / encode for phase, taken in seconds.items()},
        "ratio": sum(seconds.values()) / encode,
    }
