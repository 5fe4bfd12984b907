"""Joint samples to decisions, by the classes that the nodes use and in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import IncrementSource
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import Decision, RouteConfig, RouteDecider
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers, TriggerSignals
from ros_vla_accel.precision import PrecisionConfig, PrecisionController, PrecisionDecision


@dataclass(frozen=True)
class PeriodDecision:
    """At the end of a control period: DyQ-VLA's decision and RAPID's."""

    stamp_ns: int
    precision: PrecisionDecision
    route: Decision

    def as_dict(self) -> dict[str, Any]:
        """The line of ``decisions.jsonl``."""
        return {
            "kind": "period",
            "stamp_ns": self.stamp_ns,
            "fineness": self.precision.fineness,
            "jerk": self.precision.jerk,
            "sensitivity": self.precision.sensitivity,
            "bits": self.precision.bits,
            "bits_reason": self.precision.reason,
            "importance": self.route.importance,
            "route": self.route.route.name.lower(),
            "route_reason": self.route.reason,
            "preempt_seq": self.route.preempt_seq,
        }


def preemption(signals: TriggerSignals, preempt_seq: int) -> dict[str, Any]:
    """The line of ``decisions.jsonl`` for a preemption of the running chunk."""
    return {
        "kind": "preempt",
        "stamp_ns": signals.stamp_ns,
        "acceleration": signals.acceleration,
        "torque": signals.torque,
        "acceleration_anomaly": signals.acceleration_anomaly,
        "torque_anomaly": signals.torque_anomaly,
        "velocity_weight": signals.velocity_weight,
        "importance": signals.importance,
        "preempt_seq": preempt_seq,
        "reason": signals.reason,
    }


class Decider:
    """What quantization_controller and partition_manager decide, sample by sample.

    A function of the samples (and of the descriptions and link states given between them):
    nothing here looks at a clock. source: of the motion, as the node's parameter (auto, fk,
    joint). tip_frame: link whose motion counts for fk; empty for the last one.
    """

    def __init__(
        self,
        precision: PrecisionConfig,
        triggers: TriggerConfig,
        route: RouteConfig,
        source: str = "auto",
        tip_frame: str = "",
    ) -> None:
        if source not in ("auto", "fk", "joint"):
            raise ValueError(f"source is '{source}'; choose from auto, fk, joint")
        self.health = LinkState.HEALTHY
        self._period_s = precision.period_s
        self._controller = PrecisionController(precision)
        self._triggers = Triggers(triggers)
        self._dispatcher = Dispatcher(triggers)
        self._route = RouteDecider(route)
        self._source = source
        self._tip_frame = tip_frame or None
        self._increments = IncrementSource(self._period_s, "joint") if source != "fk" else None

    @property
    def source(self) -> str:
        """Where motion is measured now: fk or joint; none while fk waits for a description."""
        return self._increments.source if self._increments else "none"

    @property
    def bits(self) -> int:
        return self._controller.bits

    @property
    def preempt_seq(self) -> int:
        return self._route.preempt_seq

    def describe(self, urdf: str, joint_names: tuple[str, ...]) -> str:
        """A robot_description came; returns why it is not used, or nothing."""
        if self._source == "joint":
            return ""
        try:
            kinematics = ForwardKinematics(urdf, joint_names, self._tip_frame)
        except (ImportError, ValueError) as error:
            return f"robot_description not used: {error}"
        self._increments = IncrementSource(self._period_s, "fk", kinematics)
        self._controller.reset()
        return ""

    def take(self, sample: JointSample) -> tuple[TriggerSignals, bool, list[PeriodDecision]]:
        """The sample's signals, whether to preempt now, and the control periods that it ends."""
        signals = self._triggers.update(sample)
        self._route.note(signals)
        preempt = self._dispatcher.update(signals) and self._route.preempt(self.health)
        periods = []
        for increment in self._increments.update(sample) if self._increments else ():
            precision = self._controller.update(
                increment.a_xyz, increment.a_rot, increment.stamp_ns
            )
            route = self._route.decide(increment.stamp_ns, self.health)
            periods.append(PeriodDecision(increment.stamp_ns, precision, route))
        return signals, preempt, periods
