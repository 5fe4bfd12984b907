"""Cuts that take too long, and chunks that are reused, under the scheduler."""

import pytest
from scheduler_policy import STARVED, Policy

from ros_vla_accel.partition.orders import (
    StartCloud,
    StartEdge,
)
from ros_vla_accel.partition.route import Route


@pytest.mark.parametrize(
    ("case", "encode_s", "edge_busy", "cut"),
    [
        ("features are there long before the fallback", 0.02, False, "vision"),
        ("features would keep the fallback waiting", 0.25, False, "observation"),
        ("features would wait for an edge inference", 0.02, True, "observation"),
        ("the policy cannot be cut there", None, False, "observation"),
    ],
)
def test_images_go_where_features_would_come_too_late(
    case: str, encode_s: float | None, edge_busy: bool, cut: str
) -> None:
    policy = Policy()
    if encode_s is not None:
        policy.scheduler.on_features("vision", encode_s)
    if edge_busy:
        assert isinstance(policy.poll(), StartEdge)
        policy.decide(seq=1)
        policy.decide(seq=2, cut="vision")
        policy.wait(50)
    else:
        policy.decide(cut="vision")
    order = policy.poll()
    assert isinstance(order, StartCloud)
    assert order.cut == cut, case
    assert policy.scheduler.counts["cuts_waived"] == (cut == "observation")


def test_with_reuse_a_calm_chunk_is_played_until_the_edge_must_start() -> None:
    policy = Policy(edge_p95_s=0.139)
    stamp_ns = policy.now
    policy.decide(Route.EDGE, reuse=True)
    policy.wait(610)
    policy.decide(Route.EDGE, reuse=True)
    policy.executor(stamp_ns)
    assert policy.poll() is None
    policy.wait(1)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert order.reason == "chunk in play is 12.2 rows old"


def test_reuse_ends_at_once_with_a_critical_or_stale_decision() -> None:
    for end in ("critical", "stale"):
        policy = Policy()
        stamp_ns = policy.now
        policy.wait(400)
        policy.decide(Route.EDGE, valid_ms=20, reuse=True)
        policy.executor(stamp_ns)
        assert policy.poll() is None
        if end == "stale":
            policy.wait(21)
        else:
            policy.decide(Route.EDGE, reuse=True, critical=True)
        assert isinstance(policy.poll(), StartEdge), end


def test_with_reuse_a_preemption_spares_a_chunk_that_was_just_asked_for() -> None:
    policy = Policy()
    flags = {"reuse": True, "critical": True}
    policy.decide(seq=1, **flags)
    first = policy.poll()
    assert isinstance(first, StartCloud)
    policy.wait(100)
    policy.reply(first)
    policy.executor(first.stamp_ns)
    policy.wait(100)
    policy.decide(seq=2, **flags)
    assert policy.poll() is None
    assert policy.scheduler.counts["preemptions_spared"] == 1
    policy.wait(100)
    policy.executor(first.stamp_ns)
    assert policy.poll() is None, "it was answered, not put off"
    policy.decide(seq=3, **flags)
    assert isinstance(policy.poll(), StartCloud)


def test_an_arm_that_holds_does_not_wait_for_a_silent_cloud() -> None:
    policy = Policy()
    stamp_ns = policy.now
    policy.wait(900)
    policy.executor(stamp_ns, STARVED)
    policy.decide()
    assert isinstance(policy.poll(), StartCloud)
    assert isinstance(policy.poll(), StartEdge)
