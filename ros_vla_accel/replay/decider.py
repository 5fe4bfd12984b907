"""Joint samples to decisions, by the classes that the nodes use and in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from ros_vla_accel.kinematics.action_motion import ActionMotion
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.partition.dispatcher import Dispatcher
from ros_vla_accel.partition.link import LinkState
from ros_vla_accel.partition.route import Decision, RouteConfig, RouteDecider
from ros_vla_accel.partition.triggers import TriggerConfig, Triggers, TriggerSignals
from ros_vla_accel.precision import MotionPrecision, PrecisionConfig, PrecisionDecision
from ros_vla_accel.precision.motion_precision import Decided


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
            "reuse": self.route.reuse,
            "critical": self.route.critical,
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

    A function of what it is given: nothing here looks at a clock. By the motion alone, unless
    it is also told what the actions mean and then gets the recorded plan (``on_chunk`` and
    ``on_executor_state``). source: of the motion, as the node's parameter. motion: meaning of the
    actions, which the source "action" needs. tip_frame: link whose motion counts for fk; empty
    for the last one. Raises ValueError for a source that is unknown or cannot be had.
    """

    def __init__(
        self,
        precision: PrecisionConfig,
        triggers: TriggerConfig,
        route: RouteConfig,
        source: str = "auto",
        tip_frame: str = "",
        motion: ActionMotion | None = None,
    ) -> None:
        self.health = LinkState.HEALTHY
        self._precision = MotionPrecision(precision, source, motion, tip_frame)
        self._triggers = Triggers(triggers)
        self._dispatcher = Dispatcher(triggers)
        self._route = RouteDecider(route)

    @property
    def source(self) -> str:
        """Where motion is measured now; none while fk waits for a description."""
        return self._precision.source

    @property
    def bits(self) -> int:
        return self._precision.controller.bits

    @property
    def preempt_seq(self) -> int:
        return self._route.preempt_seq

    def describe(self, urdf: str, joint_names: tuple[str, ...]) -> str:
        """A robot_description came; returns why it is not used, or nothing."""
        return self._precision.describe(urdf, joint_names)

    def take(self, sample: JointSample) -> tuple[TriggerSignals, bool, list[PeriodDecision]]:
        """The sample's signals, whether to preempt now, and the control periods that it ends."""
        signals = self._triggers.update(sample)
        self._route.note(signals)
        preempt = self._dispatcher.update(signals) and self._route.preempt(
            sample.stamp_ns, self.health
        )
        return signals, preempt, self._periods(self._precision.on_sample(sample))

    def on_chunk(self, request_id: int, actions: ArrayLike, period_s: float) -> None:
        """Takes a recorded action_chunk: (H, A) rows of ``period_s``."""
        self._precision.on_chunk(request_id, actions, period_s)

    def on_executor_state(
        self, stamp_ns: int, playing: bool, request_id: int, row: int, command: ArrayLike
    ) -> list[PeriodDecision]:
        """Takes a recorded executor_state; the control period that it begins, if it decides."""
        return self._periods(
            self._precision.on_executor_state(stamp_ns, playing, request_id, row, command)
        )

    def _periods(self, decided: Decided) -> list[PeriodDecision]:
        return [
            PeriodDecision(stamp_ns, decision, self._route.decide(stamp_ns, self.health))
            for stamp_ns, decision in decided
        ]
