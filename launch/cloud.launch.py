"""The cloud worker: ``ros2 launch ros_vla_accel cloud.launch.py bind:=tcp://127.0.0.1:5555``."""

from ros_vla_accel.nodes.launch_actions import description


def generate_launch_description():
    return description("cloud")
