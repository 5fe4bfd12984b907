"""The two processes of ``bench ros``; run as ``python -m ros_vla_accel.nodes.traffic ROLE``."""

# ruff: noqa: E402 (the middleware is chosen before rclpy is imported)

from __future__ import annotations

import array
import json
import sys
import time
from dataclasses import dataclass, field
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


def main(argv: list[str]) -> int:
    """Runs one role until SIGTERM, then prints its figures as one line of JSON."""
    role, *arguments = argv
    rclpy.init(args=arguments)
    node: Any
    if role == "source":
        node = Source()
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
