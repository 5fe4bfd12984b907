"""The simulated Sawyer: ``ros2 launch ros_vla_accel sim.launch.py task:=drawer-open``."""

from ros_vla_accel.nodes.launch_actions import description


def generate_launch_description():
    return description("sim")
