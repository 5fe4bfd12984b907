"""Chooses what ``import rclpy`` means: ROS 2's own rclpy, or `ros_vla_accel.standalone`.

Entry points call `install` before they import a node. ``ROS_VLA_ACCEL_MIDDLEWARE`` is ``auto``
(default), ``ros`` or ``standalone``; ``auto`` takes standalone only where no ROS 2 is sourced.
"""

from __future__ import annotations

import importlib
import os

VARIABLE = "ROS_VLA_ACCEL_MIDDLEWARE"

_selected = ""


class MiddlewareError(RuntimeError):
    """The middleware that was asked for cannot be used."""


def is_ros_sourced() -> bool:
    """Whether a ROS 2 set-up script was sourced in this shell."""
    return bool(os.environ.get("AMENT_PREFIX_PATH") or os.environ.get("ROS_DISTRO"))


def choice() -> str:
    """``ros`` or ``standalone``, from the environment. Raises MiddlewareError for other values."""
    wanted = os.environ.get(VARIABLE, "") or "auto"
    if wanted not in ("auto", "ros", "standalone"):
        raise MiddlewareError(f"{VARIABLE} is '{wanted}'; it must be auto, ros or standalone")
    if wanted == "auto":
        return "ros" if is_ros_sourced() else "standalone"
    return wanted


def install() -> str:
    """Makes ``import rclpy`` work and returns what was chosen; later calls change nothing.

    Raises MiddlewareError if ROS 2 is chosen (or sourced) but cannot be imported: there is no
    silent switch to standalone.
    """
    global _selected
    if _selected:
        return _selected
    chosen = choice()
    if chosen == "ros":
        try:
            importlib.import_module("rclpy")
        except ImportError as error:
            raise MiddlewareError(
                f"ROS 2 is sourced (or {VARIABLE}=ros) but rclpy cannot be imported: {error}. "
                f"Use the Python that ROS 2 was built for, or set {VARIABLE}=standalone"
            ) from error
    else:
        from . import standalone

        standalone.install()
    _selected = chosen
    logger = importlib.import_module("rclpy.logging").get_logger("ros_vla_accel")
    logger.info(f"middleware: {chosen} ({VARIABLE}={os.environ.get(VARIABLE) or 'auto'})")
    return chosen


def selected() -> str:
    """What `install` chose; empty before it."""
    return _selected
