"""Action rows as motion of the end effector: the same signals, from what is commanded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.increments import Increment, joint_increment
from ros_vla_accel.kinematics.joints import FloatArray

KINDS = ("cartesian_velocity", "joint_velocity", "joint_position")
AXES = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")


class ActionMotion:
    """Increments per control period of action rows (n, A), in the order of their columns.

    kind: meaning of a row, ``PolicySpec.action_kind``. columns: what each column moves, by its
    place in the row: one of ``AXES`` for Cartesian kinds (m/s, rad/s), a joint's name for joint
    kinds (rad or m, per second for velocities); columns that move nothing (grippers) are left out.
    joints: for joint kinds, the arm's joints in order, wrist last.

    Joint kinds give what ``IncrementSource`` gives for the source "joint", Cartesian kinds what it
    gives for "fk", but for the arm's own dynamics. Raises ValueError for an unknown kind, and when
    no column moves anything.
    """

    def __init__(
        self,
        kind: str,
        columns: Mapping[int, str],
        period_s: float = 0.05,
        joints: Sequence[str] = (),
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"action kind '{kind}' has no motion; known: {', '.join(KINDS)}")
        names = AXES if kind == "cartesian_velocity" else tuple(joints)
        self.kind = kind
        self._period_s = period_s
        self._places = [(column, names.index(n)) for column, n in columns.items() if n in names]
        self._size = len(names)
        if not self._places:
            raise ValueError(
                f"no action column moves the arm: of {dict(columns)} none is among "
                f"{', '.join(names) or 'the joints, which are not named'}"
            )
        self.width = 1 + max(column for column, _ in self._places)
        """Columns that a row must have at least."""
        self.turns = kind != "cartesian_velocity" or any(to >= 3 for _, to in self._places)
        """Whether rows tell the rotation; else it is zero, which is not known but assumed."""

    def increments(self, rows: ArrayLike, before: ArrayLike | None = None) -> FloatArray:
        """Rows (n, A) -> (n, 2, 3): translation and rotation vector of each control period.

        before: (A,) the row in force before them, which positions are differenced from; without
        it the first increment of positions is zero.
        """
        actions = np.asarray(rows, dtype=np.float64)
        moved = np.zeros((len(actions), self._size))
        for column, to in self._places:
            moved[:, to] = actions[:, column]
        if self.kind == "joint_position":
            start = actions[:1] if before is None else np.asarray(before, np.float64)[None]
            first = np.zeros((1, self._size))
            for column, to in self._places:
                first[:, to] = start[:1, column] if len(start) else 0.0
            moved = np.diff(moved, axis=0, prepend=first)
        else:
            moved *= self._period_s
        if self.kind == "cartesian_velocity":
            return moved.reshape(-1, 2, 3)
        return np.array([joint_increment(row) for row in moved]).reshape(-1, 2, 3)


class ActionSource:
    """The increments of what was commanded, one per control period: the source "action"."""

    def __init__(self, motion: ActionMotion) -> None:
        self._motion = motion
        self._before: FloatArray | None = None

    def update(self, command: ArrayLike, stamp_ns: int) -> Increment:
        """command: (A,), in force during the control period that begins at ``stamp_ns``."""
        row = np.asarray(command, dtype=np.float64)
        a_xyz, a_rot = self._motion.increments(row[None], self._before)[0]
        self._before = row
        return Increment(stamp_ns, a_xyz, a_rot)

    def reset(self) -> None:
        """Forgets the last command."""
        self._before = None
