"""``ros-vla-accel view``: the signals of the report, live, for Foxglove."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ros_vla_accel import middleware
from ros_vla_accel.control.robot_config import RobotConfig
from ros_vla_accel.replay.live_signals import LiveSignals
from ros_vla_accel.replay.parameters import precision_config, trigger_config
from ros_vla_accel.replay.pipeline import ReplayConfig
from ros_vla_accel.resources import existing_path, share_path


def main(argv: Sequence[str]) -> int:
    """Serves until SIGINT or SIGTERM; 1 if it could not start."""
    parser = argparse.ArgumentParser(
        prog="ros-vla-accel view",
        description=(
            "Serves cameras, signals and decisions of the running edge over a Foxglove "
            f"WebSocket. The layout for the Foxglove app: {share_path('config')}/"
            "foxglove_layout.json"
        ),
    )
    parser.add_argument("--host", default="127.0.0.1", help="interface (there is no password)")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--namespace", default="vla", help="of the edge's nodes")
    parser.add_argument(
        "--params-file", default="edge", help="the edge's parameters: a path, or name in config/"
    )
    parser.add_argument(
        "--robot", default="", help="robot YAML: a path, or a name in config/robots"
    )
    parser.add_argument(
        "--calibration", default="", help="the edge's: a path, or a name in config/calibration"
    )
    parser.add_argument("--use-sim-time", action="store_true", help="time from /clock")
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(argv)
    try:
        params_file = existing_path(options.params_file, "config")
        precision, source = precision_config(params_file, options.calibration)
        triggers = trigger_config(params_file, options.calibration)
        robot = str(existing_path(options.robot, "config/robots")) if options.robot else ""
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))

    def signals(robot: RobotConfig) -> LiveSignals:
        return LiveSignals(
            ReplayConfig(robot=robot, precision=precision, triggers=triggers, source=source)
        )

    parameters = {
        "host": options.host,
        "port": options.port,
        "robot": robot,
        "use_sim_time": str(options.use_sim_time).lower(),
    }
    arguments = ["--ros-args", "--log-level", options.log_level]
    arguments += [
        "-r",
        f"__ns:=/{options.namespace.strip('/')}",
        "--params-file",
        str(params_file),
    ]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"] if value != "" else []
    middleware.install()
    # Only now: its first lines import rclpy, which the middleware has just chosen.
    node = importlib.import_module("ros_vla_accel.nodes.view")
    return int(node.run(signals, ["view", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
