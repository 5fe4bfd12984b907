"""The dispatchers that RAPID is compared with, for benchmarks: they do not look at the motion."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ros_vla_accel.partition.route import Route


class Baseline(Protocol):
    """Where a replan begins, and whether the edge's answer is good enough.

    samples: chunks that an edge inference draws, each from its own noise.
    """

    samples: int

    def route(self) -> Route:
        """Of the next replan; called once for each."""
        ...

    def doubts(self, chunks: NDArray[np.float32]) -> bool:
        """Whether the cloud is asked after all. chunks: (samples, H, A) of the edge."""
        ...


class EdgeOnly:
    """Every chunk is made on the edge."""

    samples = 1

    def route(self) -> Route:
        return Route.EDGE

    def doubts(self, chunks: NDArray[np.float32]) -> bool:
        return False


class CloudOnly(EdgeOnly):
    """Every chunk is made in the cloud."""

    def route(self) -> Route:
        return Route.CLOUD


class FixedPeriod(EdgeOnly):
    """Every ``period``-th chunk is made in the cloud, the first among them."""

    def __init__(self, period: int) -> None:
        if period < 1:
            raise ValueError(f"period {period} must be at least 1")
        self._period = period
        self._count = 0

    def route(self) -> Route:
        route = Route.EDGE if self._count % self._period else Route.CLOUD
        self._count += 1
        return route


class UncertaintyThreshold(EdgeOnly):
    """The vision-based rule that RAPID's paper compares with (arXiv:2603.07949), for a flow head.

    The edge draws ``samples`` chunks for each replan; where they disagree by more than
    ``threshold`` (see ``disagreement``), the cloud is asked.
    """

    def __init__(self, threshold: float, samples: int = 4) -> None:
        if samples < 2 or not threshold >= 0:
            raise ValueError(
                f"samples {samples} must be at least 2 and threshold {threshold} not negative"
            )
        self.samples = samples
        self.threshold = threshold

    def doubts(self, chunks: NDArray[np.float32]) -> bool:
        return disagreement(chunks) > self.threshold


def disagreement(chunks: NDArray[np.float32]) -> float:
    """Variance over the samples, averaged over rows and entries. chunks: (samples, H, A).

    The entries are taken as they are: for rows in m/s beside a gripper in -1..1, the gripper
    weighs most, as it does in the actions that decide a grasp.
    """
    return float(np.var(chunks, axis=0, dtype=np.float64).mean())
