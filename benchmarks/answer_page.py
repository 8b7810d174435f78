"""The part of README.md on what an answer costs."""

from benchmarks.sections import Json
from benchmarks.tables import table


def answer(results: Json) -> str:
    """Both tables: of embeddings, and of pictures."""
    embeddings, pictures = results["embeddings"], results["pictures"]
    phases = list(embeddings[-1]["phases"])
    rows = [
        (
            f"{one['pairs']:,}",
            f"{one['unit_seconds']:.2f}",
            f"{one['ratio']:.0f}",
            *(f"{one['phases'].get(phase, 0):.1f}" for phase in phases),
            f"{one['auroc']:.3f}",
        )
        for one in embeddings
    ]
    head = ("pairs", "F in s", "whole job", *phases, "AUROC")
    parts = [(phase, f"{value:.2f}") for phase, value in pictures["phases"].items()]
    return f"""A default `misalignment` job through the API, all phases, no clean set. Of embeddings,
{embeddings[-1]["width"]} wide, one pair of twenty wrong, as multiples of F: a plain forward pass of two square heads
over all pairs. All in processor time of one thread.

{table(head, rows)}

{pictures["pairs"]:,} pictures through a small model of no training, which makes the fit long, as multiples of the pass
that embeds them ({pictures["encode_seconds"]:.1f} s): {pictures["ratio"]:.2f}.

{table(("phase", "÷ embedding pass"), parts)}"""
