"""The last gate before the robot: speed, step and position limits of a command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.joints import FloatArray

if TYPE_CHECKING:
    from ros_vla_accel.control.robot_config import RobotConfig

HOLDS = ("zero", "keep")


@dataclass(frozen=True)
class ActionLimits:
    """Limits per action column (A columns) and per joint; from the robot YAML.

    names: action columns, for messages. max_abs: largest magnitude (a speed for velocity
    actions; infinity for position actions). max_step: largest change between control ticks.
    lower, upper: range of position actions. hold: what a column does when nothing valid is left:
    "zero" ramps a velocity to zero, "keep" repeats the last value (grippers, positions).

    measured_joint: for joint_position actions, the index of the joint that a column commands, -1
    for none; the first command then starts from where the joint is. joint_names, joint_lower,
    joint_upper: range of the measured joints, in the order of ``JointSample``; for velocity
    actions a joint outside it is a fault. Where columns command joint positions, give the range
    as ``lower`` and ``upper`` instead: commands are then clamped.
    """

    names: tuple[str, ...]
    max_abs: tuple[float, ...]
    max_step: tuple[float, ...]
    hold: tuple[str, ...]
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    measured_joint: tuple[int, ...] | None = None
    joint_names: tuple[str, ...] = ()
    joint_lower: tuple[float, ...] | None = None
    joint_upper: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("action limits need at least one action column")
        for key in ("max_abs", "max_step", "hold", "lower", "upper", "measured_joint"):
            self._check_length(key, "action columns", len(self.names))
        for key in ("joint_lower", "joint_upper"):
            self._check_length(key, "joint_names", len(self.joint_names))
        for key in ("max_abs", "max_step"):
            for name, value in zip(self.names, getattr(self, key), strict=True):
                if not value > 0:
                    raise ValueError(f"{key} of '{name}' is {value}; it must be positive")
        for name, hold in zip(self.names, self.hold, strict=True):
            if hold not in HOLDS:
                raise ValueError(f"hold of '{name}' is '{hold}'; choose from {HOLDS}")
        for names, low, high in (
            (self.names, self.lower, self.upper),
            (self.joint_names, self.joint_lower, self.joint_upper),
        ):
            if (low is None) != (high is None):
                raise ValueError("lower and upper limits must be given together")
            for name, least, most in zip(names, low or (), high or (), strict=False):
                if not least < most:
                    raise ValueError(f"limits of '{name}': lower {least} is not below {most}")

    def _check_length(self, key: str, of: str, size: int) -> None:
        values = getattr(self, key)
        if values is not None and len(values) != size:
            raise ValueError(f"{key} has {len(values)} values for {size} {of}")

    @classmethod
    def of_robot(cls, robot: RobotConfig, action_names: Sequence[str]) -> ActionLimits:
        """The limits that a robot YAML sets for the action columns of a policy.

        Where actions are joint positions, a column of a joint's name is clamped to the range of
        that joint; otherwise a joint outside its range is a fault.
        """
        inf = math.inf
        targets = [robot.actions[name] for name in action_names]
        positions = robot.action_kind == "joint_position"
        ranges = {} if not positions else robot.joint_limits
        low, high = zip(*(ranges.get(name, (-inf, inf)) for name in action_names), strict=True)
        joints = [robot.joint_limits.get(joint, (-inf, inf)) for joint in robot.joint_names]
        faults = not positions and bool(robot.joint_limits)
        index = {joint: at for at, joint in enumerate(robot.joint_names)}
        return cls(
            names=tuple(action_names),
            max_abs=tuple(inf if item.max_abs is None else item.max_abs for item in targets),
            max_step=tuple(inf if item.max_step is None else item.max_step for item in targets),
            hold=tuple(item.hold for item in targets),
            lower=tuple(
                least if item.lower is None else max(least, item.lower)
                for least, item in zip(low, targets, strict=True)
            ),
            upper=tuple(
                most if item.upper is None else min(most, item.upper)
                for most, item in zip(high, targets, strict=True)
            ),
            measured_joint=(
                tuple(index.get(name, -1) for name in action_names) if positions else None
            ),
            joint_names=robot.joint_names,
            joint_lower=tuple(low for low, _ in joints) if faults else None,
            joint_upper=tuple(high for _, high in joints) if faults else None,
        )

    @property
    def size(self) -> int:
        return len(self.names)


class Limiter:
    """Applies ``ActionLimits`` to a command. Stateless."""

    def __init__(self, limits: ActionLimits) -> None:
        self.limits = limits
        self._low = _intersect(limits.max_abs, limits.lower, -1)
        self._high = _intersect(limits.max_abs, limits.upper, 1)
        self._step = np.asarray(limits.max_step, dtype=np.float64)

    def apply(self, action: ArrayLike, previous: ArrayLike) -> tuple[FloatArray, bool]:
        """Returns the nearest allowed command (A,) and whether it differs from ``action``.

        action: (A,), finite. previous: (A,), the last command; NaN where a column has none yet,
        which leaves its first step free. A range wins over the step limit: a command never
        leaves the range only because the last one was outside it.
        """
        wanted = np.asarray(action, dtype=np.float64)
        last = np.asarray(previous, dtype=np.float64)
        origin = np.where(np.isnan(last), wanted, last)
        stepped = origin + np.clip(wanted - origin, -self._step, self._step)
        limited = np.clip(stepped, self._low, self._high)
        # Adding the difference back is not exact in floating point; a limit is.
        changed = bool(np.any(np.abs(limited - wanted) > 1e-9 * (1.0 + np.abs(wanted))))
        return (limited if changed else wanted), changed

    def joint_fault(self, position: ArrayLike) -> str | None:
        """Names the first joint outside its range, or returns None. position: (n,)."""
        limits = self.limits
        if limits.joint_lower is None or limits.joint_upper is None:
            return None
        values = np.asarray(position, dtype=np.float64)
        outside = (values < limits.joint_lower) | (values > limits.joint_upper)
        if not outside.any():
            return None
        at = int(np.argmax(outside))
        return (
            f"joint '{limits.joint_names[at]}' is at {values[at]:.4f}, outside "
            f"{limits.joint_lower[at]:.4f}..{limits.joint_upper[at]:.4f}; move it back, then "
            "give a new instruction or arm again"
        )


def _intersect(max_abs: Sequence[float], bound: Sequence[float] | None, sign: int) -> FloatArray:
    speed = np.asarray(max_abs, dtype=np.float64) * sign
    if bound is None:
        return speed
    pick = np.maximum if sign < 0 else np.minimum
    result: FloatArray = pick(speed, np.asarray(bound, dtype=np.float64))
    return result
