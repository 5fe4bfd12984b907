"""``ros-vla-accel check``: does this robot YAML fit this policy?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ros_vla_accel.contracts import PolicySpec
from ros_vla_accel.control.robot_config import RobotConfig, RobotConfigError, load_robot
from ros_vla_accel.policies.loader import PolicyLoadError, load_policy
from ros_vla_accel.resources import existing_path


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when robot and policy fit."""
    parser = argparse.ArgumentParser(prog="ros-vla-accel check", description=__doc__)
    parser.add_argument(
        "--robot", default="metaworld_sawyer", help="path, or name in config/robots"
    )
    parser.add_argument("--policy", default="ros_vla_accel.policies:reference")
    parser.add_argument("--policy-args", default="", metavar="YAML")
    options = parser.parse_args(argv)
    console = Console()
    try:
        robot = load_robot(existing_path(options.robot, "config/robots"))
        spec = load_policy(options.policy, options.policy_args).spec
        robot.check(spec)
    except (RobotConfigError, PolicyLoadError, FileNotFoundError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    console.print(_mapping(robot, spec))
    if robot.armed:
        console.print("[yellow]armed: commands leave as soon as the executor is active[/]")
    else:
        console.print("disarmed: nothing is commanded until the parameter `armed` is true")
    return 0


def _mapping(robot: RobotConfig, spec: PolicySpec) -> Table:
    table = Table(title=f"policy '{spec.name}' on robot '{robot.name}'", show_header=False)
    for camera in spec.cameras:
        size = f"{camera.width}x{camera.height}"
        table.add_row("camera", f"{camera.name} ({size})", robot.cameras[camera.name])
    for name in spec.state_names:
        source = robot.state_source(name)
        table.add_row("state", name, f"{source.field} of {source.joint}")
    for name, target in robot.actions.items():
        topic = robot.commands[target.command].topic
        table.add_row("action", name, f"{topic}, field {target.field}, at most {target.max_abs}")
    table.add_row(
        "time", f"{spec.horizon} rows of {spec.period_s} s", f"replan after {spec.replan_rows}"
    )
    return table
