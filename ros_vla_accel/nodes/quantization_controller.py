"""Sets the activation width of the policy from the robot's motion (DyQ-VLA, arXiv:2603.07904)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from std_msgs.msg import String

from ros_vla_accel.contracts import SCHEMA_VERSION
from ros_vla_accel.kinematics.fk import ForwardKinematics
from ros_vla_accel.kinematics.increments import IncrementSource
from ros_vla_accel.kinematics.joints import JointSample
from ros_vla_accel.msg import PrecisionCommand
from ros_vla_accel.nodes.base import STATE_QOS, STEADY, AccelNode, run_nodes
from ros_vla_accel.nodes.convert import to_stamp
from ros_vla_accel.precision import PrecisionConfig, PrecisionController, PrecisionDecision

_SETTINGS = [item for item in fields(PrecisionConfig) if item.name not in ("table", "calibrated")]


class QuantizationController(AccelNode):
    """Subscribes joint_states and robot_description; publishes precision.

    A width is published when it changes and once a second. Until robot_description has come,
    source ``auto`` measures motion in joint space; silent joints mean full precision.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("quantization_controller", **kwargs)
        table = PrecisionConfig().table
        for item in _SETTINGS:
            self.declare(item.name.rstrip("_"), item.default, "see config/edge.yaml")
        self.declare("table_sensitivity", [s for s, _ in table], "upper ends of the table's rows")
        self.declare("table_bits", [bits for _, bits in table], "bits of the table's rows")
        self.declare("source", "auto", "motion from fk (robot_description), joint, or auto")

    def _setup(self) -> None:
        settings = {
            item.name: self.get_parameter(item.name.rstrip("_")).value for item in _SETTINGS
        }
        rows = (self.get_parameter(name).value for name in ("table_sensitivity", "table_bits"))
        self._config = PrecisionConfig.from_dict(
            {**settings, "table": list(zip(*rows, strict=True))}
        )
        self._robot = self.load_robot()
        self._source = self.get_parameter("source").value
        if self._source not in ("auto", "fk", "joint"):
            raise ValueError(f"source is '{self._source}'; choose from auto, fk, joint")
        self._increments: IncrementSource | None = None
        self._controller = PrecisionController(self._config)
        self._problem = ""
        self._decision = PrecisionDecision(16, float("nan"), float("nan"), float("nan"), "start")
        self._stamp_ns = 0
        if self._source != "fk":
            self._increments = IncrementSource(self._config.period_s, "joint")
        self._commands = self.publisher(PrecisionCommand, "precision", STATE_QOS)
        self.subscribe(String, "robot_description", self._on_description, STATE_QOS)
        self._joints = self.joint_input(self._robot)
        self.listen(self._joints, self._on_sample)
        self.every(0.1, self._watch, clock=STEADY)
        self.every(1.0, self._publish, clock=STEADY)

    def _on_description(self, msg: String) -> None:
        if self._source == "joint":
            return
        try:
            kinematics = ForwardKinematics(
                msg.data, self._robot.joint_names, self._robot.tip_frame or None
            )
        except (ImportError, ValueError) as error:
            self._problem = f"robot_description not used: {error}"
            return
        self._problem = ""
        self._increments = IncrementSource(self._config.period_s, "fk", kinematics)
        self._controller.reset()
        self.get_logger().info(f"motion by forward kinematics of '{kinematics.frame}'")

    def _on_sample(self, sample: JointSample) -> None:
        if not self.active or self._increments is None:
            return
        for increment in self._increments.update(sample):
            self._take(
                self._controller.update(increment.a_xyz, increment.a_rot, increment.stamp_ns),
                increment.stamp_ns,
            )

    def _watch(self) -> None:
        """Silent joints: the width must not stay where the last motion left it."""
        if not self.active:
            return
        now_ns = self.now_ns()
        decision = self._controller.stale(now_ns)
        if decision is not None and decision.reason != self._decision.reason:
            self._take(decision, now_ns)

    def _take(self, decision: PrecisionDecision, stamp_ns: int) -> None:
        changed = decision.bits != self._decision.bits
        self._decision, self._stamp_ns = decision, stamp_ns
        if changed:
            self._publish()

    def _publish(self) -> None:
        if not self.active:
            return
        decision = self._decision
        msg = PrecisionCommand(
            schema_version=SCHEMA_VERSION,
            activation_bits=decision.bits,
            sensitivity=decision.sensitivity,
            motion_fineness=decision.fineness,
            angular_jerk=decision.jerk,
            calibrated=self._config.calibrated,
            reason=decision.reason,
        )
        msg.header.stamp = to_stamp(self._stamp_ns)
        self._commands.publish(msg)

    def diagnosis(self) -> tuple[int, str, dict[str, Any]]:
        decision = self._decision
        values = {
            "bits": decision.bits,
            "sensitivity": decision.sensitivity,
            "source": self._increments.source if self._increments else "none",
            "calibrated": self._config.calibrated,
        }
        if self._problem:
            return self.WARN, self._problem, values
        return self.OK, f"{decision.bits} bits: {decision.reason}", values


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(lambda: [QuantizationController()], args)
