"""The width follows the motion of the arm: few bits in fast transit, all of them at rest."""

import math

import pytest
from diagnostic_msgs.msg import DiagnosticArray, KeyValue
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from ros_vla_accel.msg import PrecisionCommand
from ros_vla_accel.nodes.base import STATE_QOS
from ros_vla_accel.nodes.convert import to_stamp
from ros_vla_accel.nodes.quantization_controller import QuantizationController

NAMES = [f"right_j{i}" for i in range(7)] + ["r_close", "l_close"]


class Arm:
    """Turns its first joint at ``speed`` rad/s; joint states at 100 Hz."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self.speed, self.sending = 0.0, True
        self._angle, self._last_ns = 0.0, 0
        self._joints = bench.probe.create_publisher(
            JointState, "joint_states", qos_profile_sensor_data
        )
        self.widths = bench.listen(PrecisionCommand, "precision", STATE_QOS)
        bench.every(0.01, self._publish)

    def _publish(self) -> None:
        now_ns = int(self._bench.probe.get_clock().now().nanoseconds)
        if self._last_ns:
            self._angle += self.speed * (now_ns - self._last_ns) * 1e-9
        self._last_ns = now_ns
        if self.sending:
            msg = JointState(name=NAMES, position=[self._angle, *[0.0] * 8])
            msg.header.stamp = to_stamp(now_ns)
            self._joints.publish(msg)

    def until_bits(self, condition):
        self._bench.until(lambda: self.widths and condition(self.widths[-1].activation_bits))
        return self.widths[-1]


def test_transit_lowers_the_width_and_rest_or_silence_restores_it(bench):
    arm = Arm(bench)
    bench.start(QuantizationController, source="joint", mu95=0.02, nu95=1.0)
    at_rest = arm.until_bits(lambda bits: bits == 16)
    arm.speed = 0.4
    moving = arm.until_bits(lambda bits: bits <= 4)
    assert moving.sensitivity < 0.25
    assert not moving.calibrated
    arm.speed = 0.0
    arm.until_bits(lambda bits: bits == 16)
    arm.speed = 0.4
    arm.until_bits(lambda bits: bits <= 4)
    arm.sending = False
    silent = arm.until_bits(lambda bits: bits == 16)
    assert "old" in silent.reason
    assert math.isnan(silent.sensitivity)
    assert at_rest.activation_bits == 16


def test_a_robot_description_switches_to_forward_kinematics(bench):
    pytest.importorskip("pinocchio")
    from ros_vla_accel.sim.urdf import sawyer_urdf

    description = bench.probe.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data=sawyer_urdf()))
    diagnostics = bench.listen(DiagnosticArray, "/diagnostics")
    bench.start(QuantizationController)
    source = KeyValue(key="source", value="fk")
    bench.until(lambda: any(source in s.values for array in diagnostics for s in array.status))


def test_a_robot_description_that_is_no_urdf_is_reported_and_joint_space_serves(bench):
    pytest.importorskip("pinocchio")
    description = bench.probe.create_publisher(String, "robot_description", STATE_QOS)
    description.publish(String(data="<robot"))
    arm = Arm(bench)
    node = bench.start(QuantizationController, mu95=0.02, nu95=1.0)
    arm.speed = 0.4
    arm.until_bits(lambda bits: bits <= 4)
    assert "not used" in node.diagnosis()[1]


@pytest.mark.parametrize(
    "wrong", [{"source": "eyes"}, {"mu95": 0.0}, {"table_bits": [2, 3, 8]}, {"robot": "nobody"}]
)
def test_a_wrong_parameter_fails_the_configuration(bench, wrong):
    from rclpy.parameter import Parameter

    overrides = [Parameter(name, value=value) for name, value in wrong.items()]
    node = bench.add(QuantizationController(namespace="/vla", parameter_overrides=overrides))
    assert not node.autostart()
