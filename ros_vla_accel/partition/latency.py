"""Quantiles of the last durations."""

from __future__ import annotations

import math
from collections import deque


class LatencyWindow:
    """The last ``size`` durations in seconds, and their quantiles; any thread may read them."""

    def __init__(self, size: int = 100) -> None:
        self._durations_s: deque[float] = deque(maxlen=size)

    def add(self, duration_s: float) -> None:
        """Adds a duration; negative or not finite ones (a reset clock) are ignored."""
        if math.isfinite(duration_s) and duration_s >= 0:
            self._durations_s.append(duration_s)

    def quantile_s(self, share: float) -> float:
        """The smallest duration that ``share`` of the window does not exceed; NaN if empty."""
        ordered = sorted(tuple(self._durations_s))
        if not ordered:
            return math.nan
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def p50_s(self) -> float:
        return self.quantile_s(0.50)

    @property
    def p95_s(self) -> float:
        return self.quantile_s(0.95)
