"""The names of what is judged."""

from typing import Final

OURS: Final = {
    "suspicion": 1,
    "pair_loss": 1,
    "clip_score": -1,
    "lemon": 1,
    "leave_one_out": 1,
    "contrast_loss": 1,
    "margin": 1,
    "self_influence": 1,
    "influence": -1,
    "positive_influence": -1,
    "negative_influence": -1,
    "neighbour_influence": -1,
    "tracin": -1,
    "trak": -1,
    "ekfac_if": -1,
}
"""The columns of results, and whether high or low is suspicious."""

NO_CLEAN, NO_FIT = "suspicion, no clean set", "suspicion, no fit"
"""Of jobs that have no clean set, or take the model as it is; `suspicion` alone is of the default with a clean set."""
