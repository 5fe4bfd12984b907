"""After how many rows of the chunk in play the next one is asked for."""

from __future__ import annotations

import math

from ros_vla_accel.partition.orders import SchedulerConfig
from ros_vla_accel.partition.route import Decision, Route


def replan_rows(
    config: SchedulerConfig,
    edge_p95_s: float,
    cloud_p95_s: float,
    decision: Decision | None,
    now_ns: int,
) -> int:
    """Age in rows at which the chunk in play is to be replaced.

    ``replan_rows`` of the policy, or earlier with an edge that is slower than the rows left then.
    While a valid decision allows reuse, as late as the edge can still replace the chunk one row
    before it ends; and where the cloud is asked first, so much earlier that its answer (p95, NaN
    while unknown) is there before the edge has to start.
    """
    latest = config.horizon - 1 - math.ceil(edge_p95_s / config.period_s)
    ordinary = max(1, min(config.replan_rows, latest))
    if decision is None or not decision.reuse or now_ns > decision.valid_until_ns:
        return ordinary
    if decision.route is Route.CLOUD:
        wait_s = max(0.0, decision.deadline_s - edge_p95_s)
        if not math.isnan(cloud_p95_s):
            wait_s = min(wait_s, cloud_p95_s)
        latest -= math.ceil(wait_s / config.period_s)
    return max(ordinary, latest)
