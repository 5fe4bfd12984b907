"""``python -m ros_vla_accel.nodes NAME``: chooses the middleware, then runs one node process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ros_vla_accel import middleware

EXECUTABLES = {
    "vla_policy": "ros_vla_accel.nodes.vla_policy",
    "quantization_controller": "ros_vla_accel.nodes.quantization_controller",
    "partition_manager": "ros_vla_accel.nodes.partition_manager",
    "action_executor": "ros_vla_accel.nodes.action_executor",
    "edge_control": "ros_vla_accel.nodes.edge_control",
    "recorder": "ros_vla_accel.nodes.recorder_node",
    "sim_robot": "ros_vla_accel.sim.robot",
}
"""Executable -> module with a ``main(args)``. CMakeLists.txt makes a wrapper for each."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in EXECUTABLES:
        print(f"expected one of: {', '.join(EXECUTABLES)}", file=sys.stderr)
        return 2
    # Before the node's module, whose first lines import rclpy.
    middleware.install()
    module = importlib.import_module(EXECUTABLES[arguments[0]])
    return int(module.main(arguments) or 0)


if __name__ == "__main__":
    sys.exit(main())
