"""The last gate before the robot: speed, step and position limits of a command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.joints import FloatArray

HOLDS = ("zero", "keep")


@dataclass(frozen=True)
class ActionLimits:
    """Limits per action column (A columns) and per joint; from the robot YAML.

    names: action columns, for messages. max_abs: largest magnitude (a speed for velocity
    actions; infinity for position actions). max_step: largest change between control ticks.
    lower, upper: range of position actions. hold: what a column does when nothing valid is left:
    "zero" ramps a velocity to zero, "keep" repeats the last value (grippers, positions).

    joint_names, joint_lower, joint_upper: range of the measured joints, in the order of
    ``JointSample``. measured_joint: for joint_position actions, the index of the joint that a
    column commands, -1 for none. Such a column is clamped to the range of its joint, and its
    first command starts from where the joint is. Any other joint outside its range is a fault.
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

    @property
    def size(self) -> int:
        return len(self.names)


class Limiter:
    """Applies ``ActionLimits`` to a command. Stateless."""

    def __init__(self, limits: ActionLimits) -> None:
        self.limits = limits
        self._step = np.asarray(limits.max_step, dtype=np.float64)
        self._high = np.asarray(limits.max_abs, dtype=np.float64)
        self._low = -self._high
        if limits.lower is not None and limits.upper is not None:
            self._low = np.maximum(self._low, limits.lower)
            self._high = np.minimum(self._high, limits.upper)
        if limits.joint_lower is None or limits.joint_upper is None:
            self._joint_low = self._joint_high = None
            return
        self._joint_low = np.asarray(limits.joint_lower, dtype=np.float64)
        self._joint_high = np.asarray(limits.joint_upper, dtype=np.float64)
        for column, joint in enumerate(limits.measured_joint or ()):
            if joint >= 0:
                self._low[column] = max(self._low[column], self._joint_low[joint])
                self._high[column] = min(self._high[column], self._joint_high[joint])
                self._joint_low[joint], self._joint_high[joint] = -np.inf, np.inf

    def apply(self, action: ArrayLike, previous: ArrayLike) -> tuple[FloatArray, bool]:
        """Returns the nearest allowed command (A,) and whether it differs from ``action``.

        action: (A,), finite. previous: (A,), the last command; NaN where a column has none yet,
        which leaves its first step free. From outside its range a column returns step by step:
        a robot found outside its limits must not be thrown back into them.
        """
        wanted = np.asarray(action, dtype=np.float64)
        last = np.asarray(previous, dtype=np.float64)
        inside = np.clip(wanted, self._low, self._high)
        origin = np.where(np.isnan(last), inside, last)
        limited = origin + np.clip(inside - origin, -self._step, self._step)
        # Adding the difference back is not exact in floating point.
        changed = bool(np.any(np.abs(limited - wanted) > 1e-9 * (1.0 + np.abs(wanted))))
        return (limited if changed else wanted), changed

    def joint_fault(self, position: ArrayLike) -> str | None:
        """Names the first joint outside its range, or returns None. position: (n,)."""
        if self._joint_low is None or self._joint_high is None:
            return None
        values = np.asarray(position, dtype=np.float64)
        outside = (values < self._joint_low) | (values > self._joint_high)
        if not outside.any():
            return None
        at = int(np.argmax(outside))
        return (
            f"joint '{self.limits.joint_names[at]}' is at {values[at]:.4f}, outside "
            f"{self._joint_low[at]:.4f}..{self._joint_high[at]:.4f}; move it back, then give a "
            "new instruction or arm again"
        )
