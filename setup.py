"""pip's side of the build; colcon takes CMakeLists.txt.

The data folders lie beside the package, where ROS expects them, so a wheel maps them into
``ros_vla_accel.share``.

The INT4 kernels are plain C, loaded by ctypes: no header of torch's is needed. Without a compiler
the package installs all the same, and ``ros-vla-accel doctor`` says that they are missing.
"""

from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup

FOLDERS = ("msg", "launch", "config", "config.robots", "config.policies", "config.calibration")
SHARE = [name for name in FOLDERS if Path(name.replace(".", "/")).is_dir()]

KERNELS = "ros_vla_accel/quantization/csrc"

setup(
    ext_modules=[
        Extension(
            "ros_vla_accel.quantization._w4ax",
            sorted(glob(f"{KERNELS}/*.c")),
            depends=sorted(glob(f"{KERNELS}/*.h")),
            # Contracted multiply-adds would round otherwise on each path.
            extra_compile_args=["-std=gnu11", "-O3", "-fvisibility=hidden", "-ffp-contract=off"],
            extra_link_args=["-pthread"],
            optional=True,
        )
    ],
    packages=find_packages(include=["ros_vla_accel", "ros_vla_accel.*"])
    + ["ros_vla_accel.share." + name for name in SHARE],
    package_dir={"ros_vla_accel.share." + name: name.replace(".", "/") for name in SHARE},
    package_data={
        "ros_vla_accel": ["py.typed", "assets/**/*", "quantization/csrc/*.[ch]"],
        **{"ros_vla_accel.share." + name: ["*.msg", "*.py", "*.yaml", "*.json"] for name in SHARE},
    },
)
