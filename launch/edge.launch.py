"""The policy and the light nodes: ``ros2 launch ros_vla_accel edge.launch.py robot:=me.yaml``."""

from ros_vla_accel.nodes.launch_actions import description


def generate_launch_description():
    return description("edge")
