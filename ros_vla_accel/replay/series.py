"""Time series of any length in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 << 20
"""Rows that are kept; 100 Hz for three hours."""


class Series:
    """Rows of numbers under a rising time.

    Past ``LIMIT`` rows, neighbours are joined in pairs, with the time of the first and the larger
    of the values, so that spikes stay; each later row then joins as many.
    """

    def __init__(self, columns: Sequence[str], limit: int = LIMIT) -> None:
        self.columns = tuple(columns)
        self._limit = limit
        self._times = array("d")
        self._values = array("f")
        self._stride = 1
        self._open: tuple[float, list[float], int] | None = None

    def __len__(self) -> int:
        return len(self._times)

    def append(self, t_s: float, values: Sequence[float]) -> None:
        """values: of the columns after the first, which is the time."""
        if self._stride > 1:
            self._join(t_s, values)
            return
        self._times.append(t_s)
        self._values.extend(values)
        if len(self._times) >= self._limit:
            self._halve()

    def table(self) -> dict[str, NDArray[np.floating]]:
        """Columns by name: float64 times, float32 values."""
        values = np.frombuffer(self._values, np.float32) if self._values else np.zeros(0)
        values = values.reshape(-1, len(self.columns) - 1).T
        table: dict[str, NDArray[np.floating]] = {
            self.columns[0]: np.array(self._times, np.float64)
        }
        for name, column in zip(self.columns[1:], values, strict=True):
            table[name] = column.astype(np.float32)
        return table

    def _join(self, t_s: float, values: Sequence[float]) -> None:
        if self._open is None:
            self._open = (t_s, list(values), 1)
        else:
            first_s, kept, count = self._open
            # In this order, NaN gives way to a number.
            kept = [b if b > a or a != a else a for a, b in zip(kept, values, strict=True)]
            self._open = (first_s, kept, count + 1)
        first_s, kept, count = self._open
        if count < self._stride:
            return
        self._open = None
        self._times.append(first_s)
        self._values.extend(kept)
        if len(self._times) >= self._limit:
            self._halve()

    def _halve(self) -> None:
        pairs = len(self._times) // 2
        width = len(self.columns) - 1
        values = np.frombuffer(self._values, np.float32).reshape(-1, 2, width)[:pairs]
        joined = np.fmax(values[:, 0], values[:, 1])
        times = np.frombuffer(self._times, np.float64)[: 2 * pairs : 2].tobytes()
        self._times, self._values = array("d", times), array("f", joined.tobytes())
        self._stride *= 2
