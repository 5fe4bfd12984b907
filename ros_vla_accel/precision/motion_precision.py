"""From what moves to how many bits: the motion's source, the plan and the controller, joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.action_motion import ActionMotion, ActionSource
from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import Increment, IncrementSource
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.precision.config import PrecisionConfig
from ros_vla_accel.precision.controller import PrecisionController, PrecisionDecision
from ros_vla_accel.precision.planned_rows import PlannedRows

SOURCES = ("auto", "fk", "action", "joint")

Decided = list[tuple[int, PrecisionDecision]]
"""Stamp (ns) of the end of each control period, and its decision."""


class MotionPrecision:
    """What quantization_controller decides, live and in replay.

    source: "fk" measures the motion of a link of robot_description, and full precision is kept
    until one comes; "joint" measures it in joint space; "auto" is "joint" until a description
    comes, then "fk"; "action" takes what the executor commands. motion: meaning of the actions,
    without which there is no look-ahead. tip_frame: the link; empty: the last one.

    The plan's rows are looked at only where they and the measured motion have one unit:
    Cartesian actions with "fk", joint actions with "joint", all with "action".

    Nothing here looks at a clock but ``stale``. Raises ValueError for an unknown source, and for
    "action" without ``motion``. Not thread-safe.
    """

    def __init__(
        self,
        config: PrecisionConfig,
        source: str = "auto",
        motion: ActionMotion | None = None,
        tip_frame: str = "",
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"source is '{source}'; choose from {', '.join(SOURCES)}")
        if source == "action" and motion is None:
            raise ValueError("source 'action' needs a robot YAML whose actions move the arm")
        self.config = config
        self.controller = PrecisionController(config)
        self.rows: PlannedRows | None = None
        if motion is not None and config.look_ahead:
            self.rows = PlannedRows(motion, config.period_s, config.stale_s)
        self._wanted = source
        self._motion = motion
        self._tip_frame = tip_frame or None
        self._increments: IncrementSource | None = None
        self._commands = ActionSource(motion) if source == "action" and motion else None
        if source in ("auto", "joint"):
            self._increments = IncrementSource(config.period_s, "joint")
        self._held_ns: int | None = None

    @property
    def source(self) -> str:
        """Where motion comes from now: fk, joint or action; none while fk lacks a description."""
        if self._commands is not None:
            return "action"
        return self._increments.source if self._increments else "none"

    @property
    def looks_ahead(self) -> bool:
        """Whether rows of the plan count now."""
        if self.rows is None or self._motion is None:
            return False
        cartesian = self._motion.kind == "cartesian_velocity"
        return {"fk": cartesian, "joint": not cartesian, "action": True}.get(self.source, False)

    def describe(self, urdf: str, joint_names: Sequence[str]) -> str:
        """Takes a robot_description; returns why it is not used, or nothing."""
        if self._wanted not in ("auto", "fk"):
            return ""
        try:
            kinematics = ForwardKinematics(urdf, joint_names, self._tip_frame)
        except (ImportError, ValueError) as error:
            return f"robot_description not used: {error}"
        self._increments = IncrementSource(self.config.period_s, "fk", kinematics)
        self.controller.reset()
        return ""

    def on_sample(self, sample: JointSample) -> Decided:
        """Takes a joint sample; the decisions of the control periods that it ends."""
        if self._increments is None:
            return []
        return [self._decide(increment) for increment in self._increments.update(sample)]

    def on_chunk(self, request_id: int, actions: ArrayLike, period_s: float) -> None:
        """Takes an action_chunk: (H, A) rows of ``period_s``."""
        if self.rows is not None:
            self.rows.take_chunk(request_id, actions, period_s)

    def on_executor_state(
        self, stamp_ns: int, playing: bool, request_id: int, row: int, command: ArrayLike
    ) -> Decided:
        """Takes an executor_state. command: (A,) in force from ``stamp_ns`` on.

        Decides with the source "action" alone, where a hold means full precision: its commands
        are no motion that a policy asked for, and before the first chunk no motion at all.
        """
        if self.rows is not None:
            self.rows.take_state(playing, request_id, row)
        if self._commands is None or self._motion is None:
            return []
        row_now = np.asarray(command, dtype=np.float64)
        problem = "" if playing else "executor holds"
        if playing and len(row_now) < self._motion.width:
            problem = f"executor_state has {len(row_now)} commands, not {self._motion.width}"
        if problem:
            self._held_ns = stamp_ns
            self._commands.reset()
            return [(stamp_ns, self.controller.unknown(problem))]
        self._held_ns = None
        return [self._decide(self._commands.update(row_now, stamp_ns))]

    def stale(self, now_ns: int) -> PrecisionDecision | None:
        """Full precision if nothing was measured for ``stale_s``, else None."""
        if self.source == "none":
            return self.controller.unknown("no robot_description for source fk")
        if self._held_ns is not None and abs(now_ns - self._held_ns) <= self.config.stale_s * 1e9:
            return None
        what = "executor_state" if self._commands is not None else "joint states"
        return self.controller.stale(now_ns, what)

    def _decide(self, increment: Increment) -> tuple[int, PrecisionDecision]:
        plan, turns = None, True
        if self.rows is not None and self._motion is not None and self.looks_ahead:
            plan, turns = self.rows.coming(), self._motion.turns
        decision = self.controller.update(
            increment.a_xyz, increment.a_rot, increment.stamp_ns, plan, turns
        )
        return increment.stamp_ns, decision
