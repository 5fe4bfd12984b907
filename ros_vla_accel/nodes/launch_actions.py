"""The bring-up as ROS 2 launch actions; only launch/*.launch.py import this."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ros_vla_accel.nodes.bringup import ARGUMENTS, Process, processes


def description(kind: str) -> LaunchDescription:
    """Launch description of ``edge``, ``sim`` or ``cloud`` with all its arguments."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS[kind].items()
            ),
            OpaqueFunction(function=lambda context: _actions(kind, context)),
        ]
    )


def _actions(kind: str, context: LaunchContext) -> list[Action]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS[kind]}
    return [_action(process) for process in processes(kind, given)]


def _action(process: Process) -> Action:
    if process.command:
        return ExecuteProcess(
            # The python3 of the shell, as the executables' first line: ros2 may run on another.
            cmd=["python3", "-m", "ros_vla_accel.cli", *process.command],
            name=process.name,
            output="screen",
        )
    return Node(
        package="ros_vla_accel",
        executable=process.name,
        namespace=process.namespace,
        parameters=[process.params_file, process.parameters],
        ros_arguments=["--log-level", process.log_level],
        output="screen",
    )
