"""A policy on recorded images, asked when the stack would ask it at the latest."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ros_vla_accel.contracts import ActionChunk, InferenceRequest, Observation
from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.kinematics.signals import SignalBuffer
from ros_vla_accel.nodes.images import ImageError
from ros_vla_accel.replay.pictures import decode
from ros_vla_accel.replay.topics import IMAGES, TopicError, find

NEAR_S = 0.1
"""Farthest joint state from the images, as the policy node's joint_tolerance_s."""


class RecordedInference:
    """Runs a policy after ``replan_rows`` control periods and after each preemption.

    The arm moves as it was recorded, whatever the policy says: this shows what the policy would
    have answered, not what would have come of it. Raises PolicyLoadError or RobotConfigError if
    the policy does not load or does not fit the robot.
    """

    def __init__(self, policy: str, args: str, robot: RobotConfig, instruction: str) -> None:
        from ros_vla_accel.policies.loader import load_policy

        self._policy = load_policy(policy, args)
        if "torch" in sys.modules:
            # As the policy node's default; on busy cores, more threads wait for each other.
            sys.modules["torch"].set_num_threads(1)
        self._spec = self._policy.spec
        robot.check(self._spec)
        self._robot = robot
        self._instruction = instruction
        self._episode = 1
        self._joints = SignalBuffer()
        self._cameras: dict[str, str] = {}
        self._newest: dict[str, tuple[int, Any]] = {}
        self._last: ActionChunk | None = None
        self._preempt_seq = 0
        self._requests = 0
        self._rows: list[tuple[int, int, float]] = []

    def find_topics(self, known: Mapping[str, str], remaps: Mapping[str, str]) -> None:
        """Finds the cameras of the policy among the recorded topics. Raises TopicError."""
        for camera in self._spec.cameras:
            wanted = self._robot.cameras[camera.name]
            topic = find(known, wanted, remaps, IMAGES)
            if topic is None:
                raise TopicError(
                    f"the bag has no images for camera '{camera.name}' ('{wanted}'); name its "
                    f"topic with --topics {wanted}:=/its/topic"
                )
            self._cameras[topic] = camera.name

    def on_sample(self, sample: JointSample) -> None:
        self._joints.append(sample)

    def on_image(self, topic: str, stamp_ns: int, msg: Any) -> None:
        camera = self._cameras.get(topic)
        if camera is not None:
            self._newest[camera] = (stamp_ns, msg)

    def instruct(self, text: str) -> None:
        if text.strip() != self._instruction:
            self._instruction = text.strip()
            self._episode += 1
            self._last = None
            self._policy.reset(self._episode)

    def poll(self, now_ns: int, bits: int, preempt_seq: int) -> dict[str, Any] | None:
        """Infers if it is time to; the decision line of the answer, or None."""
        if not self._instruction or len(self._newest) < len(self._cameras):
            return None
        stamp_ns = min((stamp for stamp, _ in self._newest.values()), default=now_ns)
        last = self._last
        if last is not None:
            age_ns = stamp_ns - last.stamp_ns
            due = age_ns >= self._spec.replan_rows * last.period_ns
            if age_ns <= 0 or not (due or preempt_seq != self._preempt_seq):
                return None
        sample = self._joints.nearest(stamp_ns, NEAR_S)
        if sample is None:
            return None
        try:
            images = {camera: decode(msg) for camera, (_, msg) in self._newest.items()}
        except ImageError:
            return None
        self._preempt_seq = preempt_seq
        return self._infer(images, sample, stamp_ns, bits)

    def _infer(
        self, images: dict[str, np.ndarray], sample: JointSample, stamp_ns: int, bits: int
    ) -> dict[str, Any]:
        state = self._robot.state_vector(
            self._spec.state_names, sample.position, sample.velocity, sample.effort
        )
        self._requests += 1
        last = self._last
        executed = 0
        if last is not None:
            executed = min(last.horizon, (stamp_ns - last.stamp_ns) // last.period_ns)
        request = InferenceRequest(
            observation=Observation(images, state, self._instruction, stamp_ns),
            request_id=self._requests,
            episode_id=self._episode,
            seed=self._requests,
            activation_bits=bits,
            previous=last,
            executed_rows=executed,
        )
        began_s = time.perf_counter()
        (chunk,) = self._policy.infer([request])
        self._rows.append((stamp_ns, chunk.activation_bits, time.perf_counter() - began_s))
        self._last = chunk
        return {
            "kind": "inference",
            "stamp_ns": stamp_ns,
            "bits": bits,
            "bits_executed": chunk.activation_bits,
            "actions": [float(value) for value in chunk.actions[0]],
        }

    def table(self, start_ns: int) -> dict[str, np.ndarray]:
        """Columns t_s, bits, duration_s of the inferences."""
        return {
            "t_s": np.array([(stamp - start_ns) * 1e-9 for stamp, _, _ in self._rows]),
            "bits": np.array([bits for _, bits, _ in self._rows]),
            "duration_s": np.array([duration for _, _, duration in self._rows]),
        }
