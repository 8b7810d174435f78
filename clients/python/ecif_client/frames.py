"""Rows as a table of pandas, which is imported only here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecif_client.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd


def frame_of(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """A row for each, a column for each field.

    Raises:
        MissingPackageError: there is no pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingPackageError("to_pandas needs pandas: pip install 'ecif-client[pandas]'") from None
    return pd.DataFrame.from_records([dict(row) for row in rows])
