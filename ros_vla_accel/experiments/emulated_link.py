"""A link to the cloud that exists in virtual time only: delay, jitter, and stalls."""

from __future__ import annotations

import math

import numpy as np

JITTER = 0.25
"""Deviation of the logarithm of a crossing's time."""
STALL_SHARE = 0.05
"""Share of the time in which nothing passes."""
STALL_S = (0.3, 0.9)
"""How long one stall lasts."""


class EmulatedLink:
    """When a message that leaves at some time arrives, seconds of one virtual clock.

    A crossing takes half of ``round_trip_s`` times a log-normal factor; what would leave during a
    stall leaves at its end. Stalls lie where ``seed`` puts them, whoever uses the link.
    """

    def __init__(self, round_trip_s: float, seed: int, span_s: float = 60.0) -> None:
        if not round_trip_s >= 0:
            raise ValueError(f"round_trip_s {round_trip_s} must not be negative")
        self._half_s = round_trip_s / 2
        self._jitter = np.random.default_rng([seed, 1])
        rng = np.random.default_rng([seed, 2])
        pause_s = np.mean(STALL_S) * (1 - STALL_SHARE) / STALL_SHARE
        self._stalls: list[tuple[float, float]] = []
        end_s = 0.0
        while end_s < span_s:
            begin_s = end_s + float(rng.exponential(pause_s))
            end_s = begin_s + float(rng.uniform(*STALL_S))
            self._stalls.append((begin_s, end_s))

    def arrives_s(self, leaves_s: float) -> float:
        """One crossing."""
        for begin_s, end_s in self._stalls:
            if begin_s <= leaves_s < end_s:
                leaves_s = end_s
        return leaves_s + self._half_s * math.exp(JITTER * self._jitter.standard_normal())

    def answered_s(self, asked_s: float, worker_s: float = 0.0) -> float:
        """There, the worker's time, and back."""
        return self.arrives_s(self.arrives_s(asked_s) + worker_s)
