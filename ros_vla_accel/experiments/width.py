"""Activation widths in closed loop: fixed, or by the robot's motion as on the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ros_vla_accel.contracts import ACTIVATION_BITS, ActionChunk, PolicySpec
from ros_vla_accel.kinematics.action_motion import ActionMotion, ActionSource
from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import Increment, IncrementSource
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.precision import Calibration, PrecisionController
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
        coming: np.ndarray,
    ) -> None:
        """One control period is over. samples: its joint states; action (A,): what was executed;
        coming (n, A): rows of the chunk in play that follow."""

    def rose_above(self, chunk: ActionChunk) -> bool:
        """Whether the plan in play was made with fewer bits than are needed now."""
        return False


class MotionWidth(Width):
    """DyQ-VLA's controller, fed as the node feeds it (arXiv:2603.07904)."""

    def __init__(self, calibration: Calibration, spec: PolicySpec) -> None:
        super().__init__(16)
        self._calibration, self._widths = calibration, spec.widths
        self._period_s = spec.period_s
        self._actions = action_motion(spec.period_s)
        self._looks_ahead = calibration.source != "joint" and calibration.precision.look_ahead > 0
        self._controller = PrecisionController(calibration.precision)

    def reset(self, start: sim.JointSample) -> None:
        self._motion = SimMotion(self._calibration.source, self._period_s)
        self._controller.reset()
        self.bits = self._controller.bits
        if self._calibration.source != "action":
            self._motion.update([start], np.zeros(0))

    def moved(
        self,
        samples: Sequence[sim.JointSample],
        action: np.ndarray,
        coming: np.ndarray,
    ) -> None:
        plan = self._actions.increments(coming, action) if self._looks_ahead else None
        for increment in self._motion.update(samples, action):
            self.bits = self._controller.update(
                increment.a_xyz, increment.a_rot, increment.stamp_ns, plan, self._actions.turns
            ).bits

    def rose_above(self, chunk: ActionChunk) -> bool:
        return executed(self.bits, self._widths) > chunk.activation_bits


def executed(bits: int, widths: Sequence[int]) -> int:
    """The width that a policy of these widths runs at when asked for ``bits``."""
    return min((width for width in widths if width >= bits), default=max(widths))
