"""A robot as vla_policy sees it: cameras, joint states, executor and decisions."""

from pathlib import Path

import arm_policy
import cv2
import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from ros_vla_accel.msg import (
    ActionChunk,
    InferenceRequest,
    InferenceStats,
    PartitionDecision,
    PrecisionCommand,
)
from ros_vla_accel.msg import ExecutorState as ExecutorStateMsg
from ros_vla_accel.nodes.base import CHUNK_QOS, STATE_QOS
from ros_vla_accel.nodes.convert import chunk_from_msg, to_stamp

ROBOT = Path(__file__).parents[2] / "config" / "robots" / "metaworld_sawyer.yaml"
NAMES = [f"right_j{i}" for i in range(7)] + ["r_close", "l_close"]


OURS = arm_policy.make().spec.identity


class Robot:
    """Cameras at 20 Hz and joint states at 50 Hz, as the test wants them."""

    def __init__(self, bench) -> None:
        self._bench, probe = bench, bench.probe
        self.grey = {"corner2": 255, "gripperPOV": 0}
        self.encoding, self.size, self.cut_bytes, self.age_s = "rgb8", 64, 0, 0.0
        self.compressed = self.giant = False
        self.playing = None  # the chunk that the executor says it plays
        self.position = [0.5] * len(NAMES)
        self._images = {
            camera: probe.create_publisher(
                Image, f"camera/{camera}/image_raw", qos_profile_sensor_data
            )
            for camera in self.grey
        }
        self._jpeg = probe.create_publisher(
            CompressedImage, "corner2/compressed", qos_profile_sensor_data
        )
        self._joints = probe.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._instruction = probe.create_publisher(String, "instruction", STATE_QOS)
        self._executor = probe.create_publisher(ExecutorStateMsg, "executor_state", 10)
        self._widths: list = []
        self._decision = probe.create_publisher(PartitionDecision, "partition_decision", STATE_QOS)
        self.chunks = bench.listen(ActionChunk, "action_chunk", CHUNK_QOS)
        self.requests = bench.listen(InferenceRequest, "inference_request", CHUNK_QOS)
        self.stats = bench.listen(InferenceStats, "inference_stats")
        bench.every(0.05, self._publish_images)
        bench.every(0.02, self._publish_joints)

    def now_ns(self) -> int:
        return int(self._bench.probe.get_clock().now().nanoseconds)

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def _publish_images(self) -> None:
        stamp = to_stamp(self.now_ns() - round(self.age_s * 1e9))
        for camera, grey in self.grey.items():
            pixels = np.full((self.size, self.size, 3), grey, np.uint8)
            msg = Image(height=self.size, width=self.size, step=3 * self.size)
            msg.encoding = self.encoding
            msg.data = pixels.tobytes()[: pixels.nbytes - self.cut_bytes]
            msg.header.stamp = stamp
            self._images[camera].publish(msg)
            if self.compressed and camera == "corner2":
                jpeg = CompressedImage(format="jpeg")
                content = bytearray(cv2.imencode(".jpg", pixels)[1].tobytes())
                if self.giant:  # The start-of-frame marker, then precision, height and width.
                    frame = content.index(b"\xff\xc0")
                    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
                jpeg.data = bytes(content)
                jpeg.header.stamp = stamp
                self._jpeg.publish(jpeg)

    def _publish_joints(self) -> None:
        msg = JointState(name=NAMES, position=self.position)
        msg.header.stamp = to_stamp(self.now_ns())
        self._joints.publish(msg)
        state = ExecutorStateMsg(schema_version=1, state=ExecutorStateMsg.IDLE)
        if self.playing is not None:
            state.state, state.request_id = ExecutorStateMsg.PLAYING, self.playing.request_id
            state.episode_id = self.playing.episode_id
            state.chunk_stamp = to_stamp(self.playing.stamp_ns)
        state.header.stamp = msg.header.stamp
        self._executor.publish(state)

    def decide_cloud(self, deadline_s: float, cut: str = "observation") -> None:
        msg = PartitionDecision(schema_version=1, route=PartitionDecision.CLOUD)
        msg.cut, msg.encoding, msg.deadline_s = cut, "png", deadline_s
        msg.valid_until = to_stamp(self.now_ns() + 60 * 10**9)
        self._decision.publish(msg)

    def command_width(self, bits: int, policy: str = OURS) -> None:
        """Four times a second, as quantization_controller does, until another call."""
        msg = PrecisionCommand(schema_version=1, activation_bits=bits, policy=policy)
        if not self._widths:
            publisher = self._bench.probe.create_publisher(
                PrecisionCommand, "precision", STATE_QOS
            )
            self._bench.every(0.25, lambda: self._widths and publisher.publish(self._widths[-1]))
        self._widths = [msg]

    def until_status(self, text: str):
        self._bench.until(lambda: self.stats and text in self.stats[-1].status)

    def until_chunk(self, condition=lambda chunk: True):
        found: list = []

        def look() -> bool:
            found[:] = [c for c in map(chunk_from_msg, self.chunks) if condition(c)]
            return bool(found)

        self._bench.until(look)
        return found[-1]
