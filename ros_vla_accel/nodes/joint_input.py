"""joint_states, read once for all nodes of a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.kinematics.intake import JointIntake
from ros_vla_accel.kinematics.joints import JointSample, JointStateError
from ros_vla_accel.kinematics.signals import SignalBuffer
from ros_vla_accel.nodes.convert import to_ns

# As sensor data, but deeper: decisions are made of the samples' order and spacing, so that none
# may be lost while the process is busy for a moment.
_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)


class JointInput:
    """Subscribes to joint_states on ``node`` and hands each good sample to the listeners.

    Listeners decide by the samples, so they get them once the publisher's clock is known, 20
    messages after the first; ``buffer`` has all of them. Stamps are on this node's clock.
    A subscription at 500 Hz costs rclpy 15 % of a core, so composed nodes share one of these.
    A bad message is counted and named in ``error``; the newest good sample stays.
    """

    def __init__(self, node: Any, robot: RobotConfig) -> None:
        self.robot = robot
        self.intake = JointIntake(robot.joint_names, align=robot.align_clock)
        self.reader = self.intake.reader
        self.buffer = SignalBuffer()
        self.error = f"no joint states on '{robot.joint_states}' yet"
        self.received_steady_s = -float("inf")
        self._listeners: list[Callable[[JointSample], None]] = []
        self._node = node
        self.subscription = node.create_subscription(
            JointState, robot.joint_states, self._on_message, _QOS
        )

    def listen(self, listener: Callable[[JointSample], None]) -> None:
        self._listeners.append(listener)

    def forget(self, listener: Callable[[JointSample], None]) -> None:
        self._listeners.remove(listener)

    def age_s(self) -> float:
        """Seconds since the newest good sample arrived, on the steady clock."""
        return time.monotonic() - self.received_steady_s

    def _on_message(self, msg: JointState) -> None:
        received_ns = int(self._node.get_clock().now().nanoseconds)
        found_ns = self.intake.alignment.found_ns
        try:
            sample = self.intake.take(
                msg.name,
                msg.position,
                msg.velocity,
                msg.effort,
                to_ns(msg.header.stamp),
                received_ns,
            )
        except JointStateError as error:
            self.error = str(error)
            self._node.get_logger().warning(
                f"joint_states refused: {error}", throttle_duration_sec=5.0
            )
            return
        self.error = ""
        self.received_steady_s = time.monotonic()
        self.buffer.append(sample)
        if self.intake.settled:
            for listener in self._listeners:
                listener(sample)
        if self.intake.alignment.found_ns != found_ns:
            self._on_offset()

    def _on_offset(self) -> None:
        alignment = self.intake.alignment
        text = (
            f"joint_states are stamped {-alignment.found_ns * 1e-9:+.3f} s from this node's clock"
        )
        if alignment.trusted:
            self.buffer.clear()  # Its stamps are on the publisher's clock.
            self._node.get_logger().warning(f"{text}; aligned by the time they arrive")
        else:
            self._node.get_logger().error(
                f"{text}; mend the driver's clock or, if it is another clock and no delay, set "
                "`align_clock: true` in the robot YAML"
            )
