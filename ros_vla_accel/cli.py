"""The ``ros-vla-accel`` command: one module per subcommand, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": ("ros_vla_accel.nodes.demo", "simulated arm, policy, worker and nodes, all at once"),
    "launch": ("ros_vla_accel.nodes.launch_main", "start the edge, sim or cloud processes"),
    "cloud": ("ros_vla_accel.cloud.worker_main", "the cloud worker"),
    "keys": ("ros_vla_accel.cloud.keys_main", "who may connect to the cloud worker"),
    "train": ("ros_vla_accel.experiments.train", "train the reference policy"),
    "eval": ("ros_vla_accel.experiments.evaluate", "success of a policy in closed loop"),
    "calibrate": ("ros_vla_accel.experiments.calibrate", "widths and triggers for one policy"),
    "export": ("ros_vla_accel.experiments.export", "the policy for ONNX Runtime and TensorRT"),
    "replay": ("ros_vla_accel.replay.command", "the decisions on a recording, and CI by them"),
    "report": ("ros_vla_accel.replay.report", "a recording as one HTML page"),
    "view": ("ros_vla_accel.replay.view", "the same signals live, for Foxglove"),
    "bench": ("ros_vla_accel.bench", "benchmarks"),
    "check": ("ros_vla_accel.nodes.check", "robot YAML against a policy"),
    "doctor": ("ros_vla_accel.doctor", "what is installed and what falls back"),
}
"""Subcommand -> (module with ``main(argv) -> int``, what it does)."""

_ON_ROS = ("demo",)
"""Subcommands whose module imports rclpy: the middleware is chosen before."""

_EXTRAS = {
    "torch": "policy",
    "safetensors": "policy",
    "cyclonedds": "standalone",
    "mujoco": "sim",
    "metaworld": "sim",
    "pinocchio": "fk",
    "matplotlib": "train",
    "pyarrow": "train",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "plotly": "report",
    "foxglove": "view",
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "usage: ros-vla-accel COMMAND [--help] ...\n\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; its exit status is 0 only when it did what was asked."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"'{name}' is no command\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        if name in _ON_ROS:
            importlib.import_module("ros_vla_accel.middleware").install()
        return int(importlib.import_module(COMMANDS[name][0]).main(rest))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(
            f"`ros-vla-accel {name}` needs '{error.name}'; pip install 'ros_vla_accel[{extra}]'",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
