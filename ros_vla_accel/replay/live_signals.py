"""The report's signals while they happen, by the class that replay decides with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.replay.decider import PeriodDecision
from ros_vla_accel.replay.pipeline import ReplayConfig

Numbers = list[tuple[str, dict[str, float]]]
"""(topic, numbers by name); NaN where not known."""


class LiveSignals:
    """Signals of each joint sample and scores of each control period, for ``nodes.view``.

    config: the parameters as the edge's nodes have them, and the robot, whose ``actions`` say
    what a row of the plan means; thresholds are among the signals, so that a plot can show them.
    Raises ValueError for a source of motion that cannot be had, or without a robot.
    """

    topics: Mapping[str, Sequence[str]] = MappingProxyType(
        {
            "signals": (
                "speed",
                "acceleration",
                "torque",
                "weighted_acceleration_anomaly",
                "theta_compat",
                "weighted_torque_anomaly",
                "theta_redundancy",
                "importance",
                "critical",
                "preemptions",
            ),
            "scores": ("fineness", "jerk", "sensitivity", "theta_fp", "bits"),
        }
    )
    """Topic -> names of its numbers."""

    def __init__(self, config: ReplayConfig) -> None:
        if config.robot is None:
            raise ValueError("live signals need a robot YAML")
        self._robot: RobotConfig = config.robot
        self._triggers = config.triggers
        self._theta_fp = config.precision.theta_fp
        self._decider = config.decider()

    def describe(self, urdf: str) -> str:
        """Takes the robot description; returns why it is not used, or nothing."""
        return self._decider.describe(urdf, self._robot.joint_names)

    def on_chunk(self, request_id: int, actions: ArrayLike, period_s: float) -> None:
        """Takes an action_chunk: (H, A) rows of ``period_s``, which may raise the width."""
        self._decider.on_chunk(request_id, actions, period_s)

    def on_executor_state(
        self, stamp_ns: int, playing: bool, request_id: int, row: int, command: ArrayLike
    ) -> Numbers:
        """Takes an executor_state; the scores of the control period that it begins, if any."""
        return self._scores(
            self._decider.on_executor_state(stamp_ns, playing, request_id, row, command)
        )

    def update(self, sample: JointSample) -> Numbers:
        """What the sample completes."""
        found, _, periods = self._decider.take(sample)
        weight = found.velocity_weight
        signals = {
            "speed": float(np.linalg.norm(sample.velocity)),
            "acceleration": found.acceleration,
            "torque": found.torque,
            "weighted_acceleration_anomaly": weight * found.acceleration_anomaly,
            "theta_compat": self._triggers.theta_compat,
            "weighted_torque_anomaly": (1.0 - weight) * found.torque_anomaly,
            "theta_redundancy": self._triggers.theta_redundancy,
            "importance": found.importance,
            "critical": float(found.critical),
            "preemptions": float(self._decider.preempt_seq),
        }
        return [("signals", signals), *self._scores(periods)]

    def _scores(self, periods: list[PeriodDecision]) -> Numbers:
        return [
            (
                "scores",
                {
                    "fineness": period.precision.fineness,
                    "jerk": period.precision.jerk,
                    "sensitivity": period.precision.sensitivity,
                    "theta_fp": self._theta_fp,
                    "bits": float(period.precision.bits),
                },
            )
            for period in periods
        ]
