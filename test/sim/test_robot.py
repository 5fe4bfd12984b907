"""The simulated robot as a process of its own, seen through its topics and services only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ros_vla_accel import middleware

middleware.install()

import rclpy  # noqa: E402
from geometry_msgs.msg import TwistStamped  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import Float64, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

ENVIRONMENT = {"ROS_DOMAIN_ID": "33", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
TIMEOUT_S = 30.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def ns(stamp: Any) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def launch(*parameters: str, namespace: str = "/vla") -> subprocess.Popen[bytes]:
    arguments = [item for parameter in parameters for item in ("-p", parameter)]
    command = [sys.executable, "-m", "ros_vla_accel.nodes", "sim_robot"]
    command += ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"/clock:={namespace}/clock"]
    command += arguments
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT})


@pytest.fixture(autouse=True, scope="module")
def domain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


class Observer:
    """Keeps what the robot publishes, and talks to it."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("observer", namespace="/vla")
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.changed = threading.Condition()
        self.listen(JointState, "joint_states", qos_profile_sensor_data)
        self.listen(Image, "camera/corner2/image_raw", qos_profile_sensor_data)
        self.listen(Image, "camera/gripperPOV/image_raw", qos_profile_sensor_data)
        self.listen(Clock, "clock", 10)
        self.listen(String, "task_status", 10)
        self.twist = self.node.create_publisher(TwistStamped, "command/twist", 10)
        self.gripper = self.node.create_publisher(Float64, "command/gripper", 10)
        self.reset_client = self.node.create_client(Trigger, "sim_robot/reset")
        self.parameter_client = self.node.create_client(SetParameters, "sim_robot/set_parameters")

    def listen(self, kind: type, topic: str, qos: Any) -> None:
        def keep(msg: Any) -> None:
            with self.changed:
                self.seen[topic].append(msg)
                self.changed.notify_all()

        self.node.create_subscription(kind, topic, keep, qos)

    def wait(self, condition: Callable[[], Any]) -> Any:
        with self.changed:
            assert self.changed.wait_for(condition, TIMEOUT_S), "it did not happen in time"

    def collect(self, topic: str, count: int) -> list[Any]:
        start = len(self.seen[topic])
        self.wait(lambda: len(self.seen[topic]) >= start + count)
        return self.seen[topic][start:]

    def status(self) -> dict[str, Any]:
        return json.loads(self.collect("task_status", 1)[-1].data)

    def now_ns(self) -> int:
        return ns(self.collect("joint_states", 1)[-1].header.stamp)

    def command(self, x: float, stamp_ns: int) -> None:
        msg = TwistStamped()
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        msg.twist.linear.x = x
        self.twist.publish(msg)

    def call(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(timeout_sec=TIMEOUT_S)
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(TIMEOUT_S)
        return future.result()

    def reset(self) -> dict[str, Any]:
        assert self.call(self.reset_client, Trigger.Request()).success
        self.status()
        return self.status()

    def set_parameter(self, name: str, value: ParameterValue) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        return self.call(self.parameter_client, request).results[0]

    def set_task(self, task: str) -> Any:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=task)
        return self.set_parameter("task", value)


@pytest.fixture(scope="module")
def robot() -> Iterator[Observer]:
    process = launch("task:=drawer-open", "seed:=5", "image_rate_hz:=10.0")
    rclpy.init(args=[])
    observer = Observer()
    executor = SingleThreadedExecutor()
    executor.add_node(observer.node)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        observer.wait(lambda: observer.seen["camera/gripperPOV/image_raw"])
        yield observer
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)
        rclpy.try_shutdown()
        thread.join()


def test_joint_states_are_stamped_every_10_ms_of_simulated_time(robot: Observer) -> None:
    stamps = [ns(msg.header.stamp) for msg in robot.collect("joint_states", 60)]
    assert np.median(np.diff(stamps)) == 10_000_000
    assert min(np.diff(stamps)) > 0


def test_joint_states_name_nine_joints_with_velocity_and_effort(robot: Observer) -> None:
    msg = robot.collect("joint_states", 1)[-1]
    assert list(msg.name) == [*(f"right_j{i}" for i in range(7)), "r_close", "l_close"]
    assert len(msg.position) == len(msg.velocity) == len(msg.effort) == 9
    assert np.isfinite([*msg.position, *msg.velocity, *msg.effort]).all()


def test_images_carry_the_stamp_of_a_joint_state(robot: Observer) -> None:
    robot.seen["joint_states"].clear()
    image = robot.collect("camera/corner2/image_raw", 3)[-1]
    robot.collect("joint_states", 2)
    assert (image.encoding, image.width, image.height, image.step) == ("rgb8", 128, 128, 384)
    assert len(image.data) == 128 * 384
    assert np.ptp(np.asarray(image.data)) > 100
    stamps = [ns(msg.header.stamp) for msg in robot.seen["joint_states"]]
    assert ns(image.header.stamp) in stamps


def test_the_clock_keeps_pace_with_the_joint_states(robot: Observer) -> None:
    clock = ns(robot.collect("clock", 5)[-1].clock)
    assert abs(clock - robot.now_ns()) < 200_000_000


def test_who_joins_late_still_gets_the_description(robot: Observer) -> None:
    robot.listen(String, "robot_description", LATCHED)
    robot.wait(lambda: robot.seen["robot_description"])
    assert "right_j6" in robot.seen["robot_description"][0].data


def test_a_twist_moves_the_arm_and_its_absence_stops_it(robot: Observer) -> None:
    robot.reset()
    start = robot.collect("joint_states", 1)[-1].position[0]
    for _ in range(10):
        robot.command(-0.2, robot.now_ns())
        robot.collect("joint_states", 4)
    moved = robot.collect("joint_states", 1)[-1].position[0]
    assert abs(moved - start) > 0.03
    robot.collect("joint_states", 100)
    assert abs(robot.collect("joint_states", 1)[-1].velocity[0]) < 0.01


def test_a_gripper_command_closes_the_fingers(robot: Observer) -> None:
    robot.reset()
    robot.gripper.publish(Float64(data=1.0))
    robot.wait(lambda: robot.seen["joint_states"][-1].position[7] > 0.02)


def test_a_command_that_is_no_number_is_survived(robot: Observer) -> None:
    robot.command(float("nan"), 0)
    robot.gripper.publish(Float64(data=float("inf")))
    positions = robot.collect("joint_states", 20)[-1].position
    assert np.isfinite(positions).all()


def test_a_reset_starts_the_next_scene_and_the_clock_goes_on(robot: Observer) -> None:
    before = robot.status()
    after = robot.reset()
    assert after["seed"] == before["seed"] + 1
    assert after["episode"] == before["episode"] + 1
    assert after["time_s"] > before["time_s"]
    assert after["episode_time_s"] < before["time_s"]
    stamps = [ns(msg.header.stamp) for msg in robot.seen["joint_states"]]
    assert min(np.diff(stamps)) > 0


def test_a_task_set_at_run_time_starts_with_the_next_reset(robot: Observer) -> None:
    assert robot.set_task("button-press-topdown").successful
    assert robot.status()["task"] == "drawer-open"
    assert robot.reset()["task"] == "button-press-topdown"
    assert robot.set_task("drawer-open").successful
    assert robot.reset()["task"] == "drawer-open"


def test_an_unknown_task_is_refused_with_the_known_ones(robot: Observer) -> None:
    result = robot.set_task("make-coffee")
    assert not result.successful
    assert "drawer-open" in result.reason


def test_a_seed_set_at_run_time_is_the_next_scene(robot: Observer) -> None:
    value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=41)
    assert robot.set_parameter("seed", value).successful
    assert robot.reset()["seed"] == 41
    assert robot.reset()["seed"] == 42


def test_status_tells_the_real_time_factor(robot: Observer) -> None:
    assert 0.0 < robot.status()["real_time_factor"] < 1.2


def test_sigint_ends_it_quickly_and_cleanly(robot: Observer) -> None:
    process = launch("task:=window-open", namespace="/other")
    try:
        robot.listen(JointState, "/other/joint_states", qos_profile_sensor_data)
        robot.wait(lambda: robot.seen["/other/joint_states"])
        start_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert time.monotonic() - start_s < 3.0
    finally:
        process.kill()


def test_a_wrong_parameter_ends_it_with_an_error() -> None:
    assert launch("image_rate_hz:=-1.0").wait(TIMEOUT_S) == 1
