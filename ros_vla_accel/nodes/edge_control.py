"""The light nodes in one process, which reads joint_states once."""

from __future__ import annotations

from collections.abc import Sequence

from ros_vla_accel.nodes.action_executor import ActionExecutor
from ros_vla_accel.nodes.base import AccelNode, run_nodes
from ros_vla_accel.nodes.joint_input import JointInput
from ros_vla_accel.nodes.partition_manager import PartitionManager
from ros_vla_accel.nodes.quantization_controller import QuantizationController


def make_nodes() -> list[AccelNode]:
    """The executor first: it owns the subscription, and takes the decisions of the others."""
    executor = ActionExecutor()
    joints = JointInput(executor, executor.load_robot())
    executor.share(joints)
    return [executor, PartitionManager(joints=joints), QuantizationController(joints=joints)]


def main(args: Sequence[str] | None = None) -> int:
    return run_nodes(make_nodes, args)
