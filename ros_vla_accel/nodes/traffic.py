"""What benchmarks say to nodes and hear of them; run as ``python -m ros_vla_accel.nodes.traffic
ROLE``: ``source`` and ``sink`` for ``bench ros``, ``arm`` for ``bench trigger``."""

# ruff: noqa: E402 (the middleware is chosen before rclpy is imported)

from __future__ import annotations

import array
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ros_vla_accel import middleware

middleware.install()

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from ros_vla_accel.contracts import ActionChunk as Chunk
from ros_vla_accel.control.robot_config import load_robot
from ros_vla_accel.msg import ActionChunk, ExecutorState, PartitionDecision, PrecisionCommand
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.nodes.convert import chunk_to_msg
from ros_vla_accel.resources import existing_path

JOINTS = 7
WARM_UP_S = 1.0
CAMERAS = ("front", "wrist")
STREAMS = ("joint_states", *CAMERAS)
_STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def _stamp(message: Any, sequence: int) -> None:
    # Both processes share this machine's monotonic clock, so their stamps may be compared.
    seconds, nanoseconds = divmod(time.monotonic_ns(), 1_000_000_000)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    message.header.frame_id = str(sequence)


class Source(Node):
    """Publishes joint states and camera images at fixed rates, numbered from 0."""

    def __init__(self) -> None:
        super().__init__("source", start_parameter_services=False)
        joint_rate = self.declare_parameter("joint_rate_hz", 500.0).value
        camera_rate = self.declare_parameter("camera_rate_hz", 30.0).value
        self.width = self.declare_parameter("width", 640).value
        self.height = self.declare_parameter("height", 480).value
        self.sent = dict.fromkeys(STREAMS, 0)
        self.joints = JointState(name=[f"joint_{i}" for i in range(JOINTS)])
        self.joints.position = self.joints.velocity = self.joints.effort = [0.25] * JOINTS
        pixels = np.random.default_rng(0).integers(
            0, 256, self.height * self.width * 3, dtype=np.uint8
        )
        self.image = Image(width=self.width, height=self.height, step=3 * self.width)
        self.image.encoding, self.image.data = "rgb8", array.array("B", pixels.tobytes())
        kinds = {"joint_states": JointState, **dict.fromkeys(CAMERAS, Image)}
        self.senders = {
            name: self.create_publisher(kind, name, qos_profile_sensor_data)
            for name, kind in kinds.items()
        }
        self.create_timer(1 / joint_rate, lambda: self.send("joint_states"), clock=_STEADY)
        for camera in CAMERAS:
            self.create_timer(
                1 / camera_rate, lambda camera=camera: self.send(camera), clock=_STEADY
            )

    def send(self, stream: str) -> None:
        message = self.joints if stream == "joint_states" else self.image
        _stamp(message, self.sent[stream])
        self.senders[stream].publish(message)
        self.sent[stream] += 1


@dataclass
class Received:
    """What arrived on one stream: numbers of the messages and their delays."""

    sequence: list[int] = field(default_factory=list)
    delay_ms: list[float] = field(default_factory=list)


class Sink(Node):
    """Receives everything; images are handled in a callback group of their own."""

    def __init__(self) -> None:
        super().__init__("sink", start_parameter_services=False)
        self.received = {name: Received() for name in STREAMS}
        self.used: float | None = None
        images = MutuallyExclusiveCallbackGroup()
        self.create_subscription(
            JointState, "joint_states", self.on_joints, qos_profile_sensor_data
        )
        for camera in CAMERAS:
            self.create_subscription(
                Image,
                camera,
                lambda message, camera=camera: self.on_image(camera, message),
                qos_profile_sensor_data,
                callback_group=images,
            )
        self.warm_up = self.create_timer(WARM_UP_S, self.start, clock=_STEADY)

    def start(self) -> None:
        """Discovery and first imports are over: counts from here, once all streams flow."""
        if all(stream.sequence for stream in self.received.values()):
            self.warm_up.cancel()
            for stream in self.received.values():
                del stream.sequence[:-1], stream.delay_ms[:-1]
            self.used, self.since = time.process_time(), time.monotonic()

    def record(self, stream: str, message: Any) -> None:
        stamp = message.header.stamp
        delay_ns = time.monotonic_ns() - (stamp.sec * 1_000_000_000 + stamp.nanosec)
        received = self.received[stream]
        received.sequence.append(int(message.header.frame_id))
        received.delay_ms.append(delay_ns / 1e6)

    def on_joints(self, message: JointState) -> None:
        self.record("joint_states", message)
        np.asarray(message.position)

    def on_image(self, camera: str, message: Image) -> None:
        self.record(camera, message)
        np.frombuffer(message.data, dtype=np.uint8).reshape(message.height, message.width, 3)

    def report(self) -> dict[str, Any]:
        if self.used is None:
            return {}
        seconds = time.monotonic() - self.since
        return {
            "seconds": seconds,
            "cpu_percent": 100 * (time.process_time() - self.used) / seconds,
            "streams": {name: vars(stream) for name, stream in self.received.items()},
        }


class Arm(Node):
    """The simulated Sawyer's joints, swinging and touched once a second, and a policy's chunks.

    description: parameter, a URDF file to publish. Counts what edge_control says.
    """

    HORIZON, REPLAN_S, LOOP_S = 16, 0.4, 10.0

    def __init__(self) -> None:
        super().__init__("arm", start_parameter_services=False)
        rate_hz = self.declare_parameter("joint_rate_hz", 500.0).value
        description = self.declare_parameter("description", "").value
        robot = load_robot(existing_path("metaworld_sawyer", "config/robots"))
        self.names, self.columns = list(robot.joint_names), len(robot.actions)
        self.motion = self._motion(rate_hz)
        self.sent: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self.chunks = self.create_publisher(ActionChunk, "action_chunk", CHUNK_QOS)
        if description:
            latched = self.create_publisher(String, "robot_description", STATE_QOS)
            latched.publish(String(data=Path(description).read_text()))
        for kind, topic, qos in (
            (ExecutorState, "executor_state", 10),
            (PrecisionCommand, "precision", STATE_QOS),
            (PartitionDecision, "partition_decision", STATE_QOS),
        ):
            self.create_subscription(kind, topic, lambda m, t=topic: self._on(t, m), qos)
        self.create_timer(1 / rate_hz, self._send_joints, clock=_STEADY)
        self.create_timer(self.REPLAN_S, self._send_chunk, clock=_STEADY)

    def _motion(self, rate_hz: float) -> list[tuple[list[float], ...]]:
        """Position (rad), velocity (rad/s) and effort (Nm) of each sample of a loop."""
        rng = np.random.default_rng(0)
        t = np.arange(round(self.LOOP_S * rate_hz))[:, None] / rate_hz
        cycles = rng.integers(1, 6, len(self.names))  # whole ones, so that the loop closes
        phase = 2 * np.pi * cycles * t / self.LOOP_S
        velocity = np.pi / 2 * cycles / self.LOOP_S * np.cos(phase)
        noise = rng.normal(0, 0.05, phase.shape)
        effort = 5 * np.sin(phase) + (t % 1.0 < 0.02) * rng.uniform(0, 8, cycles.size) + noise
        fields = (np.sin(phase) / 4, velocity, effort)
        return list(zip(*(values.tolist() for values in fields), strict=True))

    def _send_joints(self) -> None:
        position, velocity, effort = self.motion[self.sent["joints"] % len(self.motion)]
        message = JointState(name=self.names, position=position, velocity=velocity, effort=effort)
        message.header.stamp = self.get_clock().now().to_msg()
        self.joints.publish(message)
        self.sent["joints"] += 1

    def _send_chunk(self) -> None:
        self.sent["chunks"] += 1
        number, now_ns = self.sent["chunks"], int(self.get_clock().now().nanoseconds)
        actions = np.full((self.HORIZON, self.columns), 0.05 * (-1) ** number, np.float32)
        chunk = Chunk(actions, 0.05, now_ns, number, episode_id=1, source="edge")
        self.chunks.publish(chunk_to_msg(chunk))

    def _on(self, topic: str, message: Any) -> None:
        self.heard[topic] += 1
        if topic == "executor_state":
            self.heard["playing"] += message.state == ExecutorState.PLAYING
            self.heard["starved"] = int(message.starved_ticks)

    def report(self) -> dict[str, Any]:
        return {"sent": self.sent, "heard": self.heard}


def main(argv: list[str]) -> int:
    """Runs one role until SIGTERM, then prints its figures as one line of JSON."""
    role, *arguments = argv
    rclpy.init(args=arguments)
    node: Any
    if role in ("source", "arm"):
        node = Source() if role == "source" else Arm()
        executor = MultiThreadedExecutor(num_threads=1)
    else:
        node = Sink()
        executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    used, since = time.process_time(), time.monotonic()
    try:
        executor.spin()
    except (ExternalShutdownException, KeyboardInterrupt):
        pass
    except Exception:
        if rclpy.ok():  # Else a callback was about to publish when SIGTERM came.
            raise
    if role == "source":
        share = 100 * (time.process_time() - used) / (time.monotonic() - since)
        report = {"sent": node.sent, "cpu_percent": share}
    else:
        report = node.report()
    print(json.dumps({"middleware": middleware.selected(), **report}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
