"""rclpy's API on the ``cyclonedds`` wheel, for machines without ROS 2.

`install` makes ``import rclpy`` and the message packages (``sensor_msgs.msg``, ...) work in this
process; nodes on other machines or in other processes see ordinary ROS 2 topics.
"""

from __future__ import annotations

import importlib
import sys

_MODULES = (
    "callback_groups",
    "client",
    "clock",
    "clock_type",
    "constants",
    "context",
    "duration",
    "event_handler",
    "exceptions",
    "executors",
    "guard_condition",
    "lifecycle",
    "logging",
    "node",
    "parameter",
    "parameter_service",
    "publisher",
    "qos",
    "service",
    "signals",
    "subscription",
    "task",
    "time",
    "time_source",
    "timer",
    "utilities",
)


def install() -> None:
    """Serves this implementation as ``rclpy`` in this process.

    Raises RuntimeError if another rclpy is imported already, ImportError naming the extra to
    install if CycloneDDS is missing.
    """
    from .interfaces import importer

    package = f"{__name__}.rclpy"
    loaded = sys.modules.get("rclpy")
    if loaded is not None and loaded.__name__ != package:
        raise RuntimeError(f"rclpy is already imported from {loaded.__file__}")
    importer.install()
    try:
        sys.modules["rclpy"] = importlib.import_module(package)
        for name in _MODULES:
            sys.modules[f"rclpy.{name}"] = importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        sys.modules.pop("rclpy", None)
        if (error.name or "").startswith(("cyclonedds", "rosbags")):
            raise ImportError(
                f"the standalone middleware needs '{error.name}': "
                "pip install 'ros_vla_accel[standalone]'"
            ) from error
        raise
