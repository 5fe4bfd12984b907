"""A small policy for the shipped robot: moves by what it sees, feels and is told."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from ros_vla_accel.contracts import ActionChunk, CameraSpec, PolicySpec


class ArmPolicy:
    """fail: what to do wrong: "raise", "reset", "shape", "list" or "hang". widths: of the spec."""

    def __init__(self, fail: str = "", widths: tuple[int, ...] = (16,)) -> None:
        self.spec = PolicySpec(
            name="arm_policy",
            cameras=(CameraSpec("corner2", 64, 64), CameraSpec("gripperPOV", 64, 64)),
            state_names=tuple(f"right_j{i}" for i in range(7)),
            action_names=("vx", "vy", "vz", "gripper"),
            horizon=16,
            period_s=0.05,
            action_kind="cartesian_velocity",
            widths=tuple(widths),
        )
        self._fail = fail

    def reset(self, episode_id: int) -> None:
        if self._fail == "reset":
            raise RuntimeError("out of memory")

    def infer(self, requests):
        if self._fail == "raise":
            raise RuntimeError("out of memory")
        if self._fail == "hang":
            time.sleep(6)
        answers = [self._answer(request) for request in requests]
        if self._fail == "shape":
            return [dataclasses.replace(answers[0], actions=answers[0].actions[:, :2])]
        if self._fail == "list":
            return [dataclasses.replace(answers[0], actions=answers[0].actions.tolist())]
        return answers

    def _answer(self, request) -> ActionChunk:
        seen = request.observation
        brightness = [float(image.mean()) / 2550 for image in seen.images.values()]
        row = [*brightness, 0.01 * float(seen.state[0]), float("close" in seen.instruction)]
        return ActionChunk(
            actions=np.tile(np.array(row, np.float32), (16, 1)),
            period_s=0.05,
            stamp_ns=seen.stamp_ns,
            request_id=request.request_id,
            episode_id=request.episode_id,
            source="edge",
            activation_bits=request.activation_bits,
            timings_s={"head": 0.001},
        )


def make(fail: str = "", widths: tuple[int, ...] = (16,)) -> ArmPolicy:
    return ArmPolicy(fail, widths)
