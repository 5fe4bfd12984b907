"""rclpy's API on the ``cyclonedds`` wheel, for machines without ROS 2.

`install` makes ``import rclpy`` and the message packages (``sensor_msgs.msg``, ...) work in this
process; nodes on other machines or in other processes see ordinary ROS 2 topics.

Limits: services (so ``ros2 param`` and ``ros2 lifecycle``) are reached from rmw_cyclonedds only.
By default discovery stays on this machine, and a real ROS 2 on it must do the same
(``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST``) to see these nodes. ROS 2 Humble lists the nodes
if ``ROS_VLA_ACCEL_GID_BYTES=24``. Actions, content filters, QoS overrides and events other than
incompatible QoS are missing; using one raises NotImplementedError. ``wstring`` is not supported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

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


_NOT_OFFERED = frozenset(
    [
        "rclpy.action",
        "rclpy.impl",
        "rclpy.parameter_client",
        "rclpy.qos_event",
        "rclpy.parameter_event_handler",
        "rclpy.qos_overriding_options",
        "rclpy.serialization",
        "rclpy.type_support",
        "rclpy.wait_for_message",
        "rclpy.waitable",
    ]
)


class _NotOfferedFinder(importlib.abc.MetaPathFinder):
    """Says which module of rclpy is missing here, instead of "No module named ..."."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in _NOT_OFFERED:
            from .rclpy.exceptions import ModuleNotOffered

            raise ModuleNotOffered(fullname)
        return None


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
    if not any(isinstance(finder, _NotOfferedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_NotOfferedFinder())
    try:
        sys.modules["rclpy"] = importlib.import_module(package)
        for name in _MODULES:
            sys.modules[f"rclpy.{name}"] = importlib.import_module(f"{package}.{name}")
        # Where rclpy keeps RCLError and InvalidHandle.
        sys.modules["rclpy._rclpy_pybind11"] = sys.modules["rclpy.exceptions"]
    except ModuleNotFoundError as error:
        sys.modules.pop("rclpy", None)
        if (error.name or "").startswith(("cyclonedds", "rosbags")):
            raise ImportError(
                f"the standalone middleware needs '{error.name}': "
                "pip install 'ros_vla_accel[standalone]'"
            ) from error
        raise
