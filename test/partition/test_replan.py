"""Reuse delays a replan only as far as the arm cannot starve, and only while the triggers see."""

import math
from dataclasses import replace

import pytest

from ros_vla_accel.partition.orders import SchedulerConfig
from ros_vla_accel.partition.replan import Preemptions, replan_age_s
from ros_vla_accel.partition.route import Decision, Route

CONFIG = SchedulerConfig(period_s=0.05, horizon=16, replan_rows=8)
MS = 1_000_000


def decision(route: Route = Route.EDGE, critical: bool = False, reuse: bool = True) -> Decision:
    return Decision(
        route, 500 * MS, 0, "observation", "jpeg", 0.3, "test", reuse=reuse, critical=critical
    )


def age_s(found: Decision | None, edge: float = 0.139, cloud: float = 0.1, now: int = 0) -> float:
    return replan_age_s(CONFIG, edge, cloud, found, now)


def test_without_reuse_replan_rows_hold() -> None:
    assert age_s(None) == age_s(decision(reuse=False)) == pytest.approx(0.4)


def test_with_reuse_a_chunk_is_replaced_one_row_before_it_ends() -> None:
    assert age_s(decision()) + 0.139 == pytest.approx(15 * 0.05)


def test_the_cloud_gets_its_p95_before_the_edge_has_to_start() -> None:
    assert age_s(decision(Route.CLOUD)) + 0.1 + 0.139 == pytest.approx(15 * 0.05)


def test_a_cloud_that_never_answered_or_is_slow_gets_until_the_deadline_at_most() -> None:
    unknown = age_s(decision(Route.CLOUD), cloud=math.nan)
    assert unknown == age_s(decision(Route.CLOUD), cloud=5.0) == pytest.approx(0.75 - 0.3)


def test_reuse_never_replaces_earlier_than_replan_rows_would() -> None:
    assert age_s(decision(Route.CLOUD), edge=0.2, cloud=0.3) == pytest.approx(0.45)
    assert age_s(decision(Route.CLOUD), edge=0.28, cloud=0.3) == pytest.approx(0.45)
    assert age_s(decision(), edge=0.4) == pytest.approx(0.35)
    assert age_s(decision(), edge=0.7) == pytest.approx(age_s(None, edge=0.7))


def test_critical_motion_and_a_stale_decision_mean_replan_rows() -> None:
    assert age_s(decision(critical=True)) == pytest.approx(0.4)
    assert age_s(decision(), now=500 * MS) > 0.5
    assert age_s(decision(), now=501 * MS) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("found", "asked_ms", "now_ms", "spared"),
    [
        (decision(critical=True), 101, 400, True),
        (decision(critical=True), 100, 400, False),
        (decision(reuse=False), 399, 400, False),
        (decision(critical=True), 500, 501, False),  # past valid_until
    ],
)
def test_only_reuse_spares_a_chunk_that_was_just_asked_for_from_a_preemption(
    found: Decision, asked_ms: int, now_ms: int, spared: bool
) -> None:
    preemptions = Preemptions(CONFIG)
    preemptions.take(found)
    assert not preemptions.pending, "the first preempt_seq is no preemption"
    preemptions.take(replace(found, preempt_seq=1))
    assert preemptions.pending
    assert preemptions.spare(asked_ms * MS, now_ms * MS) is spared
    assert preemptions.pending is not spared
    preemptions.answer()
    assert not preemptions.pending
