"""rclpy's API; `ros_vla_accel.standalone.install` serves this package under the name ``rclpy``."""

from __future__ import annotations

from typing import Any

from . import utilities
from .context import Context
from .executors import Executor, SingleThreadedExecutor
from .node import Node
from .signals import (
    SignalHandlerOptions,
    install_signal_handlers,
    uninstall_signal_handlers,
    watch_signals,
)
from .task import Future
from .utilities import get_default_context, ok

__all__ = [
    "Context",
    "Future",
    "Node",
    "SignalHandlerOptions",
    "create_node",
    "get_default_context",
    "get_global_executor",
    "init",
    "ok",
    "shutdown",
    "spin",
    "spin_once",
    "spin_until_future_complete",
    "try_shutdown",
]

_executor: Executor | None = None


def init(
    *,
    args: list[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> None:
    """Starts a context; SIGINT and SIGTERM are handled for the default one."""
    if signal_handler_options is None:
        default = context is None or context is get_default_context()
        signal_handler_options = SignalHandlerOptions.ALL if default else SignalHandlerOptions.NO
    (context or get_default_context()).init(args, domain_id=domain_id)
    watch_signals()
    if signal_handler_options:
        install_signal_handlers(signal_handler_options)


def _end(context: Context | None, uninstall_handlers: bool | None) -> None:
    if uninstall_handlers or (uninstall_handlers is None and context is None):
        uninstall_signal_handlers()


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    """Ends a context. Raises if it has ended already; `try_shutdown` does not."""
    utilities.shutdown(context=context)
    _end(context, uninstall_handlers)


def try_shutdown(
    *, context: Context | None = None, uninstall_handlers: bool | None = None
) -> None:
    utilities.try_shutdown(context=context)
    _end(context, uninstall_handlers)


def get_global_executor() -> Executor:
    """The executor of `spin` where none is given; gone at shutdown."""
    global _executor
    if _executor is None:
        _executor = SingleThreadedExecutor()

        def reset() -> None:
            global _executor
            _executor = None

        get_default_context().on_shutdown(reset)
    return _executor


def create_node(node_name: str, **options: Any) -> Node:
    return Node(node_name, **options)


def spin(node: Node, executor: Executor | None = None) -> None:
    """Runs the node's callbacks until the context ends.

    Raises ExternalShutdownException if it was ended by another thread or by SIGTERM.
    """
    executor = executor or get_global_executor()
    try:
        executor.add_node(node)
        executor.spin()
    finally:
        executor.remove_node(node)


def spin_once(
    node: Node, *, executor: Executor | None = None, timeout_sec: float | None = None
) -> None:
    """Runs one callback, or returns after ``timeout_sec``."""
    executor = executor or get_global_executor()
    try:
        executor.add_node(node)
        executor.spin_once(timeout_sec=timeout_sec)
    finally:
        executor.remove_node(node)


def spin_until_future_complete(
    node: Node,
    future: Future,
    executor: Executor | None = None,
    timeout_sec: float | None = None,
) -> None:
    """Runs callbacks until the future is done, the time is over or the context ends."""
    executor = executor or get_global_executor()
    added = executor.add_node(node)
    try:
        executor.spin_until_future_complete(future, timeout_sec)
    finally:
        if added:
            executor.remove_node(node)
