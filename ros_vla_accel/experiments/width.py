"""Activation widths in closed loop: fixed, or by the robot's motion as on the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ros_vla_accel.contracts import (
    ACTIVATION_BITS,
    ActionChunk,
    PolicySpec,
    executed_width,
)
from ros_vla_accel.kinematics.action_motion import ActionMotion, ActionSource
from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import Increment, IncrementSource
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.precision import Calibration, MotionPrecision
from ros_vla_accel.sim import env as sim
from ros_vla_accel.sim.urdf import sawyer_urdf

TIP_FRAME = "hand"
_COLUMNS = {0: "linear.x", 1: "linear.y", 2: "linear.z"}


def action_motion(period_s: float) -> ActionMotion:
    """Motion of the simulated Sawyer's action rows."""
    return ActionMotion("cartesian_velocity", _COLUMNS, period_s)


def to_sample(sample: sim.JointSample) -> JointSample:
    """A simulator's sample as the nodes see it."""
    stamp_ns = round(sample.time_s * 1e9)
    return JointSample(stamp_ns, sample.position, sample.velocity, sample.effort)


class SimMotion:
    """Increments of one episode of the simulator, by one of the sources of the controller.

    source: fk, joint or action, as the node's parameter.
    """

    def __init__(self, source: str, period_s: float) -> None:
        self._commands = ActionSource(action_motion(period_s)) if source == "action" else None
        if self._commands is None:
            fk = ForwardKinematics(sawyer_urdf(), sim.JOINT_NAMES, TIP_FRAME)
            arm = len(sim.ARM_JOINTS)
            self._joints = IncrementSource(period_s, source, fk if source == "fk" else None, arm)

    def update(self, samples: Sequence[sim.JointSample], action: np.ndarray) -> list[Increment]:
        """samples: of the control period in which ``action`` (A,) was executed, in order."""
        if self._commands is not None:
            return [self._commands.update(action, round(samples[-1].time_s * 1e9))]
        return [i for sample in samples for i in self._joints.update(to_sample(sample))]


@dataclass(frozen=True)
class WidthChoice:
    """Which width an evaluation runs at. bits: fixed; calibration: a file, then by motion.

    look_ahead: whether the plan's coming rows count as well. ValueError if it makes no sense.
    """

    bits: int = 16
    calibration: str = ""
    look_ahead: bool = True

    def __post_init__(self) -> None:
        if self.bits not in ACTIVATION_BITS:
            raise ValueError(f"bits {self.bits} are unknown; choose from {ACTIVATION_BITS}")

    def make(self, spec: PolicySpec) -> Width:
        """Raises CalibrationError for a bad calibration, or one of another policy."""
        if not self.calibration:
            return Width(self.bits)
        calibration = Calibration.load(Path(self.calibration))
        calibration.check(spec.identity)
        if not self.look_ahead:
            precision = replace(calibration.precision, look_ahead=0)
            calibration = replace(calibration, precision=precision)
        return MotionWidth(calibration, spec)


class Width:
    """A fixed width, and what any other has to offer."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def reset(self, start: sim.JointSample) -> None:
        """A new episode begins with the joints at ``start``."""

    def moved(
        self,
        samples: Sequence[sim.JointSample],
        action: np.ndarray,
        chunk: ActionChunk | None,
        row: int,
    ) -> None:
        """One control period is over. samples: its joint states; action (A,): what was executed;
        chunk: in play, of which ``row`` was executed."""

    def rose_above(self, chunk: ActionChunk, due_ns: int) -> bool:
        """Whether the plan in play was made with fewer bits than are needed before ``due_ns``."""
        return False


class MotionWidth(Width):
    """DyQ-VLA's controller, fed as the node feeds it (arXiv:2603.07904)."""

    def __init__(self, calibration: Calibration, spec: PolicySpec) -> None:
        super().__init__(16)
        self._calibration, self._spec = calibration, spec
        self._actions = action_motion(spec.period_s)

    def reset(self, start: sim.JointSample) -> None:
        calibration = self._calibration
        self._precision = MotionPrecision(
            calibration.precision, calibration.source, self._actions, TIP_FRAME
        )
        if calibration.source == "fk":
            self._precision.describe(sawyer_urdf(), sim.JOINT_NAMES)
        self._precision.on_sample(to_sample(start))
        self._decision = self._precision.controller.unknown("start")
        self.bits = self._decision.bits

    def moved(
        self,
        samples: Sequence[sim.JointSample],
        action: np.ndarray,
        chunk: ActionChunk | None,
        row: int,
    ) -> None:
        request_id = 0 if chunk is None else chunk.request_id
        if chunk is not None:
            self._precision.on_chunk(request_id, chunk.actions, chunk.period_s)
        stamp_ns = to_sample(samples[-1]).stamp_ns
        decided = self._precision.on_executor_state(
            stamp_ns, chunk is not None, request_id, row, action
        )
        for sample in samples:
            decided += self._precision.on_sample(to_sample(sample))
        for _, self._decision in decided:
            self.bits = self._decision.bits

    def rose_above(self, chunk: ActionChunk, due_ns: int) -> bool:
        needed = executed_width(self.bits, self._spec.widths)
        return needed > chunk.activation_bits and self._decision.needed_ns < due_ns
