"""Do blobs and rows agree? `python -m worker.check_blobs`, after a restore, or when a disk was lost.

It changes nothing. A blob that a row names and that is not there cannot be made again but from the upload; blobs of an
owner without a row are left over, and may be deleted.
"""

import sys
from collections import Counter

from store import blob_owners
from store.blobs import Blobs
from store.database import Database
from store.settings import get_settings

_KINDS = ("datasets", "jobs", "models")


def check(database: Database, blobs: Blobs) -> tuple[list[str], dict[str, int]]:
    """(the blobs that rows name and that are missing, how many blobs each owner has that no row names).

    Rows are read first and names are looked up before and after: what comes and goes meanwhile is no finding.
    """
    begun = {owner.partition("pending/")[2] for owner, _ in blobs.list("pending")}
    with database.transaction() as session:
        wanted, owned = set(blob_owners.names(session)), blob_owners.owners(session)
    present, left_over = set(), Counter[str]()
    for kind in _KINDS:
        for name, _ in blobs.list(kind):
            present.add(name.partition(".pieces/")[0])
            left_over["/".join(name.split("/")[:2])] += 1
    with database.transaction() as session:
        missing = (wanted - present) & set(blob_owners.names(session))
        owned |= blob_owners.owners(session)
    return sorted(missing), {owner: left_over[owner] for owner in sorted(left_over) if owner not in owned | begun}


def main() -> int:
    """Print what disagrees, a line each; 1 if anything does."""
    settings = get_settings()
    database = Database.from_settings(settings)
    try:
        missing, left_over = check(database, Blobs.from_settings(settings))
    finally:
        database.close()
    for name in missing:
        print(f"missing: {name}")
    for owner, count in left_over.items():
        print(f"no row: {owner} ({count} blobs)")
    print(f"{len(missing)} blobs are missing, {len(left_over)} owners of blobs have no row")
    return 1 if missing or left_over else 0


if __name__ == "__main__":
    sys.exit(main())
