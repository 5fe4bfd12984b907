"""use_sim_time: the node's clock is /clock, and so are its timers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

SIM = [Parameter("use_sim_time", Parameter.Type.BOOL, True)]


class World:
    """A node on simulated time, and the source of that time."""

    def __init__(self, ros: Any) -> None:
        self.ros = ros
        self.node = ros.node("simulated", parameter_overrides=SIM)
        self.source = ros.node("world")
        reliability = ReliabilityPolicy.RELIABLE
        self.publisher = self.source.create_publisher(
            Clock, "/clock", QoSProfile(depth=1, reliability=reliability)
        )
        assert ros.until(lambda: self.publisher.get_subscription_count() == 1)

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds / 1e9

    def set(self, seconds: float) -> None:
        self.publisher.publish(Clock(clock=Time(seconds=seconds).to_msg()))
        assert self.ros.until(lambda: self.now() == pytest.approx(seconds))


@pytest.fixture
def world(ros: Any) -> World:
    return World(ros)


def test_time_starts_at_zero_and_follows_clock(world: World) -> None:
    assert world.now() == 0.0
    assert world.node.get_clock().clock_type == ClockType.ROS_TIME
    world.set(12.5)
    world.set(13.0)


def test_a_timer_fires_when_clock_says_so(world: World) -> None:
    calls: list[float] = []
    world.set(100.0)
    world.node.create_timer(1.0, lambda: calls.append(world.now()))
    world.set(100.9)
    assert not world.ros.until(lambda: calls, timeout_s=0.1)
    world.set(101.1)
    assert world.ros.until(lambda: calls)
    world.set(102.0)
    assert world.ros.until(lambda: len(calls) == 2)
    assert calls == [pytest.approx(101.1), pytest.approx(102.0)]


def test_a_steady_timer_runs_while_clock_stands_still(world: World) -> None:
    calls: list[int] = []
    world.set(5.0)
    steady = RosClock(clock_type=ClockType.STEADY_TIME)
    world.node.create_timer(0.01, lambda: calls.append(0), clock=steady)
    assert world.ros.until(lambda: len(calls) == 3)
    assert world.now() == 5.0


def test_a_timer_survives_time_going_back(world: World) -> None:
    calls: list[float] = []
    world.set(50.0)
    world.node.create_timer(1.0, lambda: calls.append(world.now()))
    world.set(3.0)
    world.set(4.5)
    assert world.ros.until(lambda: calls)


def test_a_jump_of_time_is_told(world: World) -> None:
    jumps: list[float] = []
    threshold = JumpThreshold(
        min_forward=Duration(seconds=10), min_backward=Duration(seconds=-1), on_clock_change=True
    )
    handle = world.node.get_clock().create_jump_callback(
        threshold, post_callback=lambda jump: jumps.append(jump.delta.nanoseconds / 1e9)
    )
    world.set(5.0)
    world.set(30.0)
    world.set(20.0)
    handle.unregister()
    world.set(60.0)
    assert jumps == [25.0, -10.0]


def test_simulated_time_can_be_switched_at_run_time(world: World) -> None:
    world.set(7.0)
    world.node.set_parameters([Parameter("use_sim_time", value=False)])
    assert world.now() == pytest.approx(time.time(), abs=5)


def test_use_sim_time_must_be_a_bool(world: World) -> None:
    (result,) = world.node.set_parameters([Parameter("use_sim_time", value="yes")])
    assert not result.successful


def test_a_sleep_ends_when_clock_has_advanced(world: World) -> None:
    world.set(1.0)
    clock, done = world.node.get_clock(), threading.Event()

    def sleep() -> None:
        if clock.sleep_for(Duration(seconds=2), world.ros.context):
            done.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    world.set(2.0)
    assert not done.is_set()
    world.set(60.0)
    assert done.wait(5)
    thread.join()
