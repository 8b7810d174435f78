"""The measure of loads: one binary COPY of rows that are encoded already, into a table as the results' is."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from benchmarks.results_world import SCORES, World
from store.results import COLUMNS

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_WHOLE = ("apart", "job", "rank", "position")


class BareCopy:
    """A table with the columns, constraints and indexes of `results`. `seconds`: what its COPYs took, commits too."""

    def __init__(self, world: World) -> None:
        self._engine = world.database.engine
        self._scores = SCORES
        self._random = np.random.default_rng(0)
        self.seconds = 0.0
        with self._engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE bare (LIKE results INCLUDING ALL)")

    def load(self, first: int, count: int) -> None:
        """Rows from rank `first` + 1 on; they are made before the clock starts."""
        content = self._encoded(first, count)
        begin = perf_counter()
        connection = self._engine.raw_connection()
        try:
            with connection.driver_connection.cursor() as cursor:  # type: ignore[union-attr]
                named = ", ".join(COLUMNS)
                with cursor.copy(f"COPY bare ({named}) FROM STDIN (FORMAT BINARY)") as copy:
                    for at in range(0, len(content), 1 << 20):
                        copy.write(content[at : at + (1 << 20)])
            connection.commit()
        finally:
            connection.close()
        self.seconds += perf_counter() - begin

    def drop(self) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE bare")

    def _encoded(self, first: int, count: int) -> bytes:
        fields: list[tuple[str, str]] = [("fields", ">i2")]
        for name in COLUMNS:
            fields.append((f"{name} length", ">i4"))
            if name in _WHOLE or name in self._scores:
                fields.append((name, ">i8" if name in _WHOLE else ">f8"))
        rows = np.zeros(count, fields)
        rows["fields"] = len(COLUMNS)
        for name in COLUMNS:
            rows[f"{name} length"] = 8 if name in _WHOLE or name in self._scores else -1
        rows["job"], rows["rank"] = 1, np.arange(first + 1, first + count + 1)
        rows["position"] = self._random.permutation(count) + first
        for name in self._scores:
            rows[name] = self._random.normal(size=count)
        rows["influence"] = np.sort(rows["influence"]) + first
        return _HEADER + rows.tobytes() + _END
