"""Chunks that were made with too few bits are asked over."""

import numpy as np
from scheduler_policy import Policy

from ros_vla_accel.contracts import ActionChunk
from ros_vla_accel.partition.orders import (
    Order,
    StartCloud,
    StartEdge,
)

WIDTHS = (2, 4, 8, 16)


def play(policy: Policy, order: Order, bits: int, source: str = "edge") -> None:
    """The order is answered with a chunk of so many bits, and the executor shows it."""
    assert isinstance(order, StartEdge | StartCloud)
    if isinstance(order, StartEdge):
        assert policy.finish(order)
    rows = np.zeros((16, 2), np.float32)
    ids = (order.request_id, order.episode_id)
    chunk = ActionChunk(rows, 0.05, order.stamp_ns, *ids, source, activation_bits=bits)
    policy.scheduler.on_chunk(chunk, policy.now)
    policy.executor(order.stamp_ns, request_id=order.request_id)


def test_a_width_that_rises_above_the_chunk_in_play_is_answered_at_once_and_once() -> None:
    policy = Policy(widths=WIDTHS)
    policy.scheduler.on_width(2)
    play(policy, policy.poll(), bits=2)
    policy.wait(60)
    assert policy.poll() is None
    policy.scheduler.on_width(8)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    assert order.reason == "8 bits needed, chunk in play has 2"
    policy.scheduler.on_width(16)
    policy.wait(20)
    assert policy.poll() is None, "one in flight"
    play(policy, order, bits=8)
    policy.wait(20)
    again = policy.poll()
    assert isinstance(again, StartEdge), "the width rose again while it ran"
    play(policy, again, bits=16)
    policy.wait(60)
    assert policy.poll() is None
    assert policy.scheduler.counts["width_rises"] == 2


def test_a_policy_that_answers_with_too_few_bits_is_not_asked_again_over_the_same_chunk() -> None:
    policy = Policy(widths=WIDTHS)
    play(policy, policy.poll(), bits=2)
    policy.wait(20)
    order = policy.poll()
    assert isinstance(order, StartEdge)
    policy.scheduler.on_edge_done(order.request_id, policy.now, ok=False)
    policy.wait(300)
    assert policy.poll() is None


def test_a_fall_or_a_rise_below_what_the_policy_executes_asks_for_nothing() -> None:
    policy = Policy(widths=(4, 16))
    policy.scheduler.on_width(2)
    play(policy, policy.poll(), bits=4)
    for bits in (4, 2):
        policy.scheduler.on_width(bits)
        policy.wait(60)
        assert policy.poll() is None


def test_a_rise_waits_for_the_cloud_request_in_flight_and_then_asks_over_its_chunk() -> None:
    policy = Policy(widths=WIDTHS)
    policy.decide()
    policy.scheduler.on_width(4)
    order = policy.poll()
    assert isinstance(order, StartCloud)
    policy.scheduler.on_width(16)
    policy.wait(20)
    assert policy.poll() is None
    play(policy, order, bits=4, source="cloud")
    policy.wait(20)
    again = policy.poll()
    assert isinstance(again, StartCloud)
    assert again.reason.startswith("16 bits needed")


def test_what_the_next_chunk_will_bring_in_time_is_not_asked_for_early() -> None:
    policy = Policy(widths=WIDTHS)
    policy.scheduler.on_width(4)
    order = policy.poll()
    play(policy, order, bits=4)
    policy.wait(60)
    assert isinstance(order, StartEdge)
    due_ns = order.stamp_ns + 8 * 50_000_000 + round(policy.scheduler.edge_p95_s * 1e9)
    policy.scheduler.on_width(16, due_ns)
    assert policy.poll() is None
    policy.scheduler.on_width(16, due_ns - 1)
    hurried = policy.poll()
    assert isinstance(hurried, StartEdge)
    assert hurried.reason == "16 bits needed, chunk in play has 4"
