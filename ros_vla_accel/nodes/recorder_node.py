"""Records a robot's stack as an MCAP bag, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.msg import (
    ActionChunk,
    ExecutorState,
    InferenceStats,
    LinkStats,
    PartitionDecision,
    PrecisionCommand,
)
from ros_vla_accel.nodes.base import STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import message_class
from ros_vla_accel.nodes.recorder import Recorder

SENSOR_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
EVENT_QOS = QoSProfile(depth=100)


def stack_topics(robot: RobotConfig) -> list[tuple[str, Any, QoSProfile]]:
    """What a replay, a report or a later look needs: inputs, decisions, chunks and commands.

    Encoded requests are left out: they are the recorded images and joint states again.
    """
    cameras = [
        (topic, CompressedImage if topic.endswith("compressed") else Image, SENSOR_QOS)
        for topic in robot.cameras.values()
    ]
    commands = [
        (command.topic, message_class(command.type), EVENT_QOS)
        for command in robot.commands.values()
    ]
    return [
        (robot.joint_states, JointState, SENSOR_QOS),
        *cameras,
        *commands,
        ("robot_description", String, STATE_QOS),
        ("instruction", String, STATE_QOS),
        ("precision", PrecisionCommand, STATE_QOS),
        ("partition_decision", PartitionDecision, STATE_QOS),
        ("action_chunk", ActionChunk, EVENT_QOS),
        ("executor_state", ExecutorState, EVENT_QOS),
        ("inference_stats", InferenceStats, EVENT_QOS),
        ("link_stats", LinkStats, EVENT_QOS),
        ("/diagnostics", DiagnosticArray, EVENT_QOS),
    ]


class RecorderNode(AccelNode):
    """Subscribes everything of the stack and writes it from activation to deactivation.

    Each activation starts a bag of its own, ``folder``/recording_TIME.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", **kwargs)
        self.declare("folder", "recordings", "where bags are written, one for each activation")
        self._recorder: Recorder | None = None

    def _setup(self) -> None:
        self._topics = stack_topics(self.load_robot())
        self._folder = Path(self.get_parameter("folder").value).expanduser()
        self.every(1.0, self._watch, clock=STEADY)

    def _start(self) -> None:
        name = f"recording_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}"
        self._recorder = Recorder(self, self._folder / name, self._topics)
        self.get_logger().info(f"recording to {self._folder / name}")

    def _stop(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        for subscription in recorder.subscriptions:
            self.destroy_subscription(subscription)
        recorder.close()
        self.get_logger().info(f"recorded {recorder.written} messages, {recorder.dropped} dropped")

    def _watch(self) -> None:
        if self._recorder is not None and self._recorder.dropped:
            self.get_logger().warning(
                f"{self._recorder.dropped} messages dropped; "
                + (self._recorder.error or "the disk does not keep up"),
                throttle_duration_sec=10.0,
            )

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        recorder = self._recorder
        if recorder is None:
            return self.OK, "not recording", {}
        values = {"written": recorder.written, "dropped": recorder.dropped}
        if recorder.error:
            return self.ERROR, recorder.error, values
        return (self.WARN if recorder.dropped else self.OK), "recording", values


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [RecorderNode()], args)
