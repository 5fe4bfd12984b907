"""A small policy for the shipped robot: moves by what it sees, feels and is told."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from ros_vla_accel.contracts import ActionChunk, CameraSpec, Features, PolicySpec


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

    def _row(self, seen) -> list[float]:
        brightness = [float(image.mean()) / 2550 for image in seen.images.values()]
        return [*brightness, 0.01 * float(seen.state[0]), float("close" in seen.instruction)]

    def _answer(self, request) -> ActionChunk:
        seen = request.observation
        row = self._row(seen)
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


class SplitArmPolicy(ArmPolicy):
    """The same, and it can be cut after its vision stage. fail: "encode", or as above."""

    def __init__(self, fail: str = "") -> None:
        super().__init__(fail)
        self.spec = dataclasses.replace(self.spec, stages=("vision", "head"))
        self._encoded = 0

    def encode(self, observation, cut, activation_bits=16) -> Features:
        self._encoded += 1
        if self._fail == "encode" and self._encoded > 2:  # not when it is tried at the start
            raise RuntimeError("out of memory")
        row = self._row(observation)
        return Features(cut, {"row": np.array([row] * 2, np.float32)}, observation.stamp_ns)

    def _row(self, seen) -> list[float]:
        if isinstance(seen, Features):
            return seen.tensors["row"][0].tolist()
        return super()._row(seen)


def split() -> SplitArmPolicy:
    return SplitArmPolicy()


def failing_split() -> SplitArmPolicy:
    return SplitArmPolicy("encode")


def make(fail: str = "", widths: tuple[int, ...] = (16,)) -> ArmPolicy:
    return ArmPolicy(fail, widths)


class OtherPolicy(ArmPolicy):
    """Takes and gives the same, under another name, and opens the gripper always."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = dataclasses.replace(self.spec, name="other_policy")

    def _answer(self, request) -> ActionChunk:
        chunk = super()._answer(request)
        chunk.actions[:, 3] = -1.0
        return chunk


def make_other() -> OtherPolicy:
    return OtherPolicy()
