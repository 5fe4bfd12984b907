"""The default context."""

from __future__ import annotations

import sys
import threading

from .arguments import without_ros_arguments
from .context import Context

_default: Context | None = None
_lock = threading.Lock()


def get_default_context(*, shutting_down: bool = False) -> Context:
    """The context that is used where none is named."""
    global _default
    with _lock:
        if _default is None:
            _default = Context()
        context = _default
        if shutting_down:
            _default = None
        return context


def ok(*, context: Context | None = None) -> bool:
    return (context or get_default_context()).ok()


def shutdown(*, context: Context | None = None) -> None:
    if context is None:
        context = get_default_context()
        if not context.ok():
            context.shutdown()  # raises, as rclpy does
        context = get_default_context(shutting_down=True)
    context.shutdown()


def try_shutdown(*, context: Context | None = None) -> None:
    if context is None:
        # Replaced even if a signal has ended it: init() must work again.
        context = get_default_context(shutting_down=True)
    context.try_shutdown()


def remove_ros_args(args: list[str] | None = None) -> list[str]:
    """Arguments without those between ``--ros-args`` and ``--``."""
    return without_ros_arguments(sys.argv if args is None else args)
