"""Timers, rates, clocks and time arithmetic."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.time import Time


def test_a_timer_calls_back_every_period(ros: Any) -> None:
    node, calls = ros.node(), []
    node.create_timer(0.02, lambda: calls.append(time.monotonic()))
    assert ros.until(lambda: len(calls) == 10)
    assert 0.17 <= calls[-1] - calls[0] < 0.5


def test_a_timer_keeps_its_phase_after_a_late_call(ros: Any) -> None:
    node, calls = ros.node(), []

    def call() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            time.sleep(0.13)

    node.create_timer(0.05, call)
    assert ros.until(lambda: len(calls) == 3)
    assert calls[1] - calls[0] == pytest.approx(0.13, abs=0.03)
    assert calls[2] - calls[0] == pytest.approx(0.15, abs=0.03)


def test_a_canceled_timer_is_silent_until_reset(ros: Any) -> None:
    node, calls = ros.node(), []
    timer = node.create_timer(0.01, lambda: calls.append(0))
    timer.cancel()
    assert timer.is_canceled()
    assert not ros.until(lambda: calls, timeout_s=0.05)
    timer.reset()
    assert not timer.is_canceled()
    assert ros.until(lambda: calls)


def test_a_timer_may_cancel_itself(ros: Any) -> None:
    node, calls = ros.node(), []

    def once() -> None:
        calls.append(0)
        timer.cancel()

    timer = node.create_timer(0.01, once)
    assert not ros.until(lambda: len(calls) > 1, timeout_s=0.1)
    assert len(calls) == 1


def test_a_timer_tells_when_it_is_due(ros: Any) -> None:
    timer = ros.node().create_timer(10.0, lambda: None)
    assert timer.timer_period_ns == 10_000_000_000
    assert 9e9 < timer.time_until_next_call() <= 10e9
    assert 0 <= timer.time_since_last_call() < 1e9
    assert not timer.is_ready()


def test_a_destroyed_timer_is_silent(ros: Any) -> None:
    node, calls = ros.node(), []
    timer = node.create_timer(0.01, lambda: calls.append(0))
    assert node.destroy_timer(timer)
    assert not ros.until(lambda: calls, timeout_s=0.05)


def test_a_timer_runs_on_the_steady_clock_if_asked(ros: Any) -> None:
    node, calls = ros.node(), []
    steady = Clock(clock_type=ClockType.STEADY_TIME)
    timer = node.create_timer(0.01, lambda: calls.append(0), clock=steady)
    assert timer.clock.clock_type == ClockType.STEADY_TIME
    assert ros.until(lambda: len(calls) == 3)


def test_a_rate_paces_a_thread(ros: Any) -> None:
    rate, stamps = ros.node().create_rate(50.0), []

    def work() -> None:
        for _ in range(5):
            rate.sleep()
            stamps.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    assert ros.until(lambda: len(stamps) == 5)
    thread.join()
    assert stamps[-1] - stamps[0] == pytest.approx(0.08, abs=0.05)


@pytest.mark.parametrize("kind", [ClockType.SYSTEM_TIME, ClockType.STEADY_TIME])
def test_a_clock_sleeps(ros: Any, kind: ClockType) -> None:
    clock = Clock(clock_type=kind)
    before = clock.now()
    assert clock.sleep_for(Duration(seconds=0.02), ros.context)
    assert Duration(seconds=0.02) <= clock.now() - before < Duration(seconds=1)


def test_shutdown_ends_a_sleep(ros: Any) -> None:
    clock, answers = Clock(clock_type=ClockType.STEADY_TIME), []
    thread = threading.Thread(
        target=lambda: answers.append(clock.sleep_for(Duration(seconds=60), ros.context))
    )
    thread.start()
    ros.context.try_shutdown()
    thread.join(5)
    assert answers == [False]


def test_times_and_durations_add_up() -> None:
    start = Time(seconds=10, nanoseconds=5)
    assert start + Duration(seconds=1.5) == Time(seconds=11, nanoseconds=500_000_005)
    assert start - Time(seconds=4) == Duration(seconds=6, nanoseconds=5)
    assert start.seconds_nanoseconds() == (10, 5)
    assert Time.from_msg(start.to_msg(), ClockType.SYSTEM_TIME) == start
    assert Duration.from_msg(Duration(seconds=-1.5).to_msg()) == Duration(seconds=-1.5)
    assert Duration(seconds=2) > Duration(nanoseconds=1)


def test_times_of_different_clocks_do_not_compare() -> None:
    ros_time = Time(seconds=1, clock_type=ClockType.ROS_TIME)
    with pytest.raises(TypeError):
        _ = Time(seconds=1) < ros_time
    with pytest.raises(TypeError):
        _ = Time(seconds=1) - ros_time
