"""Unguessable identifiers that say what they name."""

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str) -> str:
    """Return `<prefix>_` and 26 random characters (130 bits)."""
    return prefix + "_" + random_text(26)


def random_text(letters: int) -> str:
    """Random characters, 5 bits each."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(letters))
