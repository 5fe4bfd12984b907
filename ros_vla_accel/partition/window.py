"""Exact statistics over the last seconds of a stream, in constant time per sample."""

from __future__ import annotations

import math
from collections import deque

_ONE = 1 << 32
"""Fixed-point one: values are kept to 2.3e-10."""
_ONE_SQUARED = float(_ONE * _ONE)


class SlidingWindow:
    """Mean and variance of the values of the last ``duration_s``.

    The sums are integers of any size in fixed point, so that what leaves the window takes away
    exactly what it brought: there is no drift to correct, after any number of samples, and no
    cancellation however large the mean. Every value enters and leaves once: O(1) amortized.
    """

    __slots__ = ("_duration_ns", "_entries", "_first_ns", "_squares", "_sum")

    def __init__(self, duration_s: float) -> None:
        if not duration_s > 0:
            raise ValueError(f"duration_s is {duration_s}; it must be positive")
        self._duration_ns = round(duration_s * 1e9)
        self._entries: deque[tuple[int, int]] = deque()
        self.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._sum = self._squares = 0
        self._first_ns = 0

    def push(self, stamp_ns: int, value: float) -> None:
        """Adds a value; stamps must rise. Raises ValueError or OverflowError if not finite."""
        entries = self._entries
        number = int(value * _ONE)
        if not entries:
            self._first_ns = stamp_ns
        entries.append((stamp_ns, number))
        total, squares = self._sum + number, self._squares + number * number
        oldest_ns = stamp_ns - self._duration_ns
        while entries[0][0] <= oldest_ns:
            _, number = entries.popleft()
            total -= number
            squares -= number * number
        self._sum, self._squares = total, squares

    def filled(self, stamp_ns: int) -> bool:
        """Whether values were pushed for a whole duration until ``stamp_ns``."""
        return bool(self._entries) and stamp_ns - self._first_ns >= self._duration_ns

    def mean(self) -> float:
        """NaN when empty."""
        return self._sum / (len(self._entries) * _ONE) if self._entries else math.nan

    def mean_std(self) -> tuple[float, float]:
        """Mean and standard deviation (population); NaN when empty."""
        count = len(self._entries)
        if not count:
            return math.nan, math.nan
        total = self._sum
        spread = count * self._squares - total * total
        return total / (count * _ONE), math.sqrt(spread / _ONE_SQUARED) / count
