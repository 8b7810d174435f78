"""Which captions are wrong? Embeddings in, ranking out, with torch alone: `python examples/rank_embeddings.py`.

500 synthetic pairs of image and text embeddings, a fifth of the captions swapped among each other. 400 more pairs are
trusted to be right: they calibrate the flags and define the validation loss.
"""

import torch
from torch import Tensor

from ecif import rank_embeddings

PAIRS, CLEAN, WRONG, WIDTH = 500, 400, 100, 12


def synthetic(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images and texts (PAIRS + CLEAN, WIDTH) that share a latent cause, and which (PAIRS,) captions are wrong."""
    g = torch.Generator().manual_seed(seed)
    latent = torch.randn(PAIRS + CLEAN, WIDTH, generator=g)
    images, texts = (latent + 0.6 * torch.randn(latent.shape, generator=g) for _ in range(2))
    swapped = torch.randperm(PAIRS, generator=g)[:WRONG]
    texts[swapped] = texts[swapped.roll(1)]
    wrong = torch.zeros(PAIRS, dtype=torch.bool)
    wrong[swapped] = True
    return images, texts, wrong


def auroc(scores: Tensor, wrong: Tensor) -> float:
    """The probability that a wrong pair scores above a right one."""
    return float((scores[wrong][:, None] > scores[~wrong]).double().mean())


def main() -> None:
    """Rank, and compare with what is known."""
    images, texts, wrong = synthetic()
    clean = (images[PAIRS:], texts[PAIRS:])
    ranking = rank_embeddings(images[:PAIRS], texts[:PAIRS], clean=clean, temperature=0.1, false_discovery_rate=0.1)

    flags = ranking.flags
    print(f"AUROC of suspicion      {auroc(ranking.suspicion, wrong):.3f}")
    print(f"AUROC of the CLIP score {auroc(-ranking.scores['clip_score'], wrong):.3f}")
    print(f"flagged {flags.count} pairs, {int((flags.flagged & wrong).sum())} of them wrong, by {flags.method}")
    print("\nthe ten most suspicious")
    print(" pair  suspicion  influence  wrong")
    for pair in ranking.order[:10].tolist():
        influence = float(ranking.scores["influence"][pair])
        print(f"{pair:5d}  {float(ranking.suspicion[pair]):9.3f}  {influence:+9.1e}  {bool(wrong[pair])}")


if __name__ == "__main__":
    main()
