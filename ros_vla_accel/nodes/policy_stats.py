"""What the policy, its scheduler and its sender have to tell in ``InferenceStats``."""

from __future__ import annotations

import math
from typing import Any

from ros_vla_accel.contracts import AcceleratedPolicy, Policy
from ros_vla_accel.msg import InferenceStats
from ros_vla_accel.nodes.request_sender import RequestSender
from ros_vla_accel.partition.scheduler import RequestScheduler


def cache_settings(budget: float, interval: int, across: float) -> dict[str, Any]:
    """What ``moeca.cache_config`` is asked for by the node's parameters: the settings of
    ``bench moeca`` that are fastest. Only where branches outlive an inference is each step's
    routing needed."""
    return {
        "budget": budget,
        "interval": interval,
        "across": across,
        "routing": "always" if across else "with_budget",
        "forecast_order": 1 if budget or across else 2,
        "full_last": False,
    }


def accelerate(policy: Policy, cache: dict[str, Any] | None, warm_start: float) -> None:
    """Raises ValueError for a policy that has nothing to accelerate, or senseless settings."""
    if cache is None and not warm_start:
        return
    if not isinstance(policy, AcceleratedPolicy):
        raise ValueError(
            f"policy {policy.spec.name} has no action head that can be accelerated; set "
            "moeca.enabled: false and moeca.warm_start: 0.0"
        )
    policy.accelerate(cache, warm_start)


def tell_policy(msg: InferenceStats, policy: Policy | None) -> None:
    """Precision and reuse; nothing before it is loaded."""
    msg.precision = policy.spec.precision if policy else ""
    msg.cache_reuse = policy.reused() if isinstance(policy, AcceleratedPolicy) else math.nan


def tell_sender(msg: InferenceStats, sender: RequestSender) -> None:
    costs = sender.costs
    msg.bytes_sent = sender.bytes_sent
    msg.form_names = list(costs)
    msg.form_prepare_ms = [1e3 * cost.prepare_s for cost in costs.values()]
    msg.form_bytes = [cost.sent_bytes for cost in costs.values()]


def tell_scheduler(msg: InferenceStats, scheduler: RequestScheduler) -> None:
    counts = scheduler.counts
    msg.episode_id = scheduler.episode_id
    msg.inferences_edge = counts["inferences_edge"]
    msg.requests_cloud = counts["requests_cloud"]
    msg.replies_cloud = counts["replies_cloud"]
    msg.fallbacks_edge = counts["fallbacks_edge"]
    msg.edge_p50_ms = scheduler.edge_latency.p50_s * 1e3
    msg.edge_p95_ms = scheduler.edge_latency.p95_s * 1e3
