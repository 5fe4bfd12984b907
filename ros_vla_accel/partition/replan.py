"""When the chunk in play is old enough to be replaced.

Redundancy-aware reuse (RAPID, arXiv:2603.07949: four of five steps of a manipulation need no new
chunk). A decision that allows reuse says that the triggers see the motion. Then

- while nothing is critical, a chunk is played to its end (up to what its successor takes);
- while something is, the policy's ``replan_rows`` hold and a preemption replaces the chunk at
  once, unless a chunk was asked for within the last ``fresh_s``: that one is as good as new.

Without reuse, or with a decision past its time, ``replan_rows`` and every preemption hold.
"""

from __future__ import annotations

import math

from ros_vla_accel.partition.orders import SchedulerConfig
from ros_vla_accel.partition.route import Decision, Route


def reuses(decision: Decision | None, now_ns: int) -> bool:
    """Whether the decision allows reuse now."""
    return decision is not None and decision.reuse and now_ns <= decision.valid_until_ns


def replan_age_s(
    config: SchedulerConfig,
    edge_p95_s: float,
    cloud_p95_s: float,
    decision: Decision | None,
    now_ns: int,
) -> float:
    """Age of its observation at which the chunk in play is to be replaced, s.

    ``replan_rows``, or earlier with an edge that is slower than the rows left then. While nothing
    is critical and reuse is allowed, as late as the edge can still replace the chunk one row
    before it ends; where the cloud is asked first, so much earlier that its answer (p95, NaN
    while unknown) is there before the edge has to start.
    """
    period_s = config.period_s
    edge_rows = math.ceil(edge_p95_s / period_s)
    ordinary_s = period_s * max(1, min(config.replan_rows, config.horizon - 1 - edge_rows))
    if decision is None or not reuses(decision, now_ns) or decision.critical:
        return ordinary_s
    latest_s = period_s * (config.horizon - 1) - edge_p95_s
    if decision.route is Route.CLOUD:
        wait_s = max(0.0, decision.deadline_s - edge_p95_s)
        latest_s -= wait_s if math.isnan(cloud_p95_s) else min(wait_s, cloud_p95_s)
    return max(ordinary_s, latest_s)


class Preemptions:
    """Whether the newest decision's ``preempt_seq`` still asks for a chunk; the first does not."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._fresh_ns = round(config.fresh_s * 1e9)
        self._decision: Decision | None = None
        self._answered: int | None = None

    def take(self, decision: Decision | None) -> None:
        """The newest decision; None: there is none any more."""
        self._decision = decision
        if decision is not None and self._answered is None:
            self._answered = decision.preempt_seq

    @property
    def pending(self) -> bool:
        decision = self._decision
        return decision is not None and decision.preempt_seq != self._answered

    def answer(self) -> None:
        """A chunk was asked for, or none is needed any more."""
        if self._decision is not None:
            self._answered = self._decision.preempt_seq

    def spare(self, asked_ns: int, now_ns: int) -> bool:
        """With reuse, drops a preemption of what was asked for within ``fresh_s``; whether it did.

        asked_ns: newest observation in play or asked about.
        """
        fresh = 0 <= now_ns - asked_ns < self._fresh_ns
        spared = self.pending and fresh and reuses(self._decision, now_ns)
        if spared:
            self.answer()
        return spared
