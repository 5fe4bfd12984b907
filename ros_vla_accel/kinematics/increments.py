"""How far the end effector moved in each control period, whatever the rate of joint states."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.joints import FloatArray, JointSample

SOURCES = ("fk", "joint")


@dataclass(frozen=True)
class Increment:
    """Motion during the control period that ends at ``stamp_ns``.

    a_xyz: (3,) translation, m. a_rot: (3,) rotation vector, rad; both in the robot's root frame.
    With the source "joint" they stand for it: see ``IncrementSource``.
    """

    stamp_ns: int
    a_xyz: FloatArray
    a_rot: FloatArray


class IncrementSource:
    """Resamples joint positions to a grid of control periods and differences the poses there.

    The grid starts at the first sample; positions are interpolated linearly between the samples
    around each of its points, so that irregular stamps, several samples per period or fewer than
    one give the same answer. Causal and without timers: an increment comes out with the first
    sample at or after its end. A gap of more than ``gap_s`` and a stamp that goes back start a
    new grid, since nothing is known of the motion in between.

    source "fk": translation and rotation of a link by forward kinematics. source "joint", where
    no robot_description is given: the last three joints of the arm (the wrist) stand for the
    rotation and the joints before them for the translation, both in rad, the third component
    gathering what the first two leave. Their scale differs from metres, so ``mu95`` and ``nu95``
    must be calibrated with the same source.

    period_s: control period. fk: for the source "fk". arm_joints: how many leading joints of a
    sample are the arm for the source "joint"; None: all (a gripper then counts as wrist).
    """

    def __init__(
        self,
        period_s: float = 0.05,
        source: str = "joint",
        fk: ForwardKinematics | None = None,
        arm_joints: int | None = None,
        gap_s: float = 0.25,
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"source is '{source}'; choose from {', '.join(SOURCES)}")
        if source == "fk" and fk is None:
            raise ValueError(
                "source 'fk' needs a robot_description; publish one or set `source: joint`"
            )
        if not period_s > 0 or not gap_s > 0:
            raise ValueError(f"period_s {period_s} and gap_s {gap_s} must be positive")
        self.source = source
        self.restarts = 0
        self._fk = fk if source == "fk" else None
        self._arm_joints = arm_joints
        self._period_ns = round(period_s * 1e9)
        self._gap_ns = round(gap_s * 1e9)
        self._sample: JointSample | None = None
        self._due_ns = 0
        self._pose: tuple[FloatArray, FloatArray] | None = None

    def update(self, sample: JointSample) -> list[Increment]:
        """The increments of the control periods that end at or before this sample, in order."""
        last = self._sample
        self._sample = sample
        if last is None or not 0 < sample.stamp_ns - last.stamp_ns <= self._gap_ns:
            self.restarts += last is not None
            self._pose = self._posture(sample.position)
            self._due_ns = sample.stamp_ns + self._period_ns
            return []
        increments = []
        span_ns = sample.stamp_ns - last.stamp_ns
        while self._due_ns <= sample.stamp_ns:
            share = (self._due_ns - last.stamp_ns) / span_ns
            position = last.position + share * (sample.position - last.position)
            increments.append(self._increment(position))
            self._due_ns += self._period_ns
        return increments

    def reset(self) -> None:
        """Forgets the motion so far."""
        self._sample = None

    def _posture(self, position: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._fk is not None:
            return self._fk.pose(position)
        return position[: self._arm_joints].copy(), np.eye(3)

    def _increment(self, position: FloatArray) -> Increment:
        assert self._pose is not None
        before, turned_before = self._pose
        self._pose = after, turned = self._posture(position)
        if self._fk is not None:
            return Increment(
                self._due_ns, after - before, rotation_vector(turned @ turned_before.T)
            )
        return Increment(self._due_ns, *joint_increment(after - before))


def joint_increment(moved: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Joint motion (n,), wrist last, in place of translation and rotation: (3,) and (3,)."""
    wrist = max(min(3, len(moved)), len(moved) - 3)
    return _three(moved[:wrist]), _three(moved[wrist:])


def _three(values: FloatArray) -> FloatArray:
    """(n,) as (3,) of the same norm: padded, or the third gathers the rest."""
    if len(values) <= 3:
        padded = np.zeros(3)
        padded[: len(values)] = values
        return padded
    return np.array([values[0], values[1], float(np.linalg.norm(values[2:]))])


def rotation_vector(rotation: FloatArray) -> FloatArray:
    """Axis times angle (3,), rad, of a rotation matrix (3, 3): the matrix logarithm."""
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = 0.5 * float(np.linalg.norm(axis))
    cosine = 0.5 * (float(np.trace(rotation)) - 1.0)
    angle = math.atan2(sine, cosine)
    if sine > 1e-6:
        return axis * (0.5 * angle / sine)
    if cosine > 0:
        return 0.5 * axis
    # Half a turn: the axis is the direction that the rotation leaves as it is.
    outer = 0.5 * (rotation + np.eye(3))
    column = outer[:, int(np.argmax(np.diag(outer)))]
    return angle * column / float(np.linalg.norm(column))
