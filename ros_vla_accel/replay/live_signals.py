"""The report's signals while they happen, by the class that replay decides with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.route import RouteConfig
from ros_vla_accel.partition.triggers import TriggerConfig
from ros_vla_accel.precision import PrecisionConfig
from ros_vla_accel.replay.decider import Decider


class LiveSignals:
    """Signals of each joint sample and scores of each control period, for ``nodes.view``.

    precision, triggers, source: as the edge's nodes have them; thresholds are among the signals,
    so that a plot can show them. joint_names: of the samples; tip_frame: see ``Decider``. The
    scores are those of the motion alone: rows of the plan do not count here.
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

    def __init__(
        self,
        joint_names: tuple[str, ...],
        precision: PrecisionConfig,
        triggers: TriggerConfig,
        source: str = "auto",
        tip_frame: str = "",
    ) -> None:
        self._joint_names = joint_names
        self._triggers = triggers
        self._theta_fp = precision.theta_fp
        self._decider = Decider(precision, triggers, RouteConfig(), source, tip_frame)

    def describe(self, urdf: str) -> str:
        """Takes the robot description; returns why it is not used, or nothing."""
        return self._decider.describe(urdf, self._joint_names)

    def update(self, sample: JointSample) -> list[tuple[str, dict[str, float]]]:
        """(topic, numbers by name) of what the sample completes; NaN where not known."""
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
        scores = [
            {
                "fineness": period.precision.fineness,
                "jerk": period.precision.jerk,
                "sensitivity": period.precision.sensitivity,
                "theta_fp": self._theta_fp,
                "bits": float(period.precision.bits),
            }
            for period in periods
        ]
        return [("signals", signals), *(("scores", item) for item in scores)]
