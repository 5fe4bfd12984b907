"""pip's side of the build; colcon takes CMakeLists.txt.

The data folders lie beside the package, where ROS expects them, so a wheel maps them into
``ros_vla_accel.share``.
"""

from setuptools import find_packages, setup

SHARE = ("msg", "launch", "config", "config.robots")

setup(
    packages=find_packages(include=["ros_vla_accel", "ros_vla_accel.*"])
    + ["ros_vla_accel.share." + name for name in SHARE],
    package_dir={"ros_vla_accel.share." + name: name.replace(".", "/") for name in SHARE},
    package_data={
        "ros_vla_accel": ["py.typed", "assets/**/*"],
        **{"ros_vla_accel.share." + name: ["*.msg", "*.py", "*.yaml", "*.json"] for name in SHARE},
    },
)
