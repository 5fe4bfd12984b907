"""Contexts: from init to shutdown, with the participant that all nodes of a context share."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .exceptions import RCLError

if TYPE_CHECKING:
    from ..dds.graph import Graph
    from .arguments import Arguments

_contexts: weakref.WeakSet[Context] = weakref.WeakSet()


class Context:
    """Life of a ROS process: arguments, domain, shutdown callbacks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ok = False
        self._initialized = False
        self._callbacks: list[Callable[[], Any]] = []
        self._graph: Graph | None = None
        self.arguments: Arguments
        self._domain = 0

    def init(
        self,
        args: list[str] | None = None,
        *,
        initialize_logging: bool = True,
        domain_id: int | None = None,
    ) -> None:
        """Parses ``--ros-args`` of ``args`` (default: the command line).

        Raises RuntimeError if already initialized, ValueError for a wrong domain or argument.
        """
        import sys

        from ..dds.config import domain_id as domain_of_environment
        from .arguments import parse
        from .logging import set_level

        with self._lock:
            if self._initialized:
                raise RuntimeError("Context.init() must only be called once")
            self.arguments = parse(sys.argv if args is None else args)
            self._domain = domain_of_environment() if domain_id is None else domain_id
            for name, level in self.arguments.log_levels.items():
                set_level(name, level)
            self._ok = self._initialized = True
            _contexts.add(self)

    @property
    def graph(self) -> Graph:
        """The participant and what is known of others; created when first needed."""
        from ..dds.graph import Graph

        with self._lock:
            if not self._initialized:
                raise RCLError("context is not initialized: call rclpy.init()")
            if self._graph is None:
                self._graph = Graph(self._domain)
            return self._graph

    def ok(self) -> bool:
        return self._ok

    def get_domain_id(self) -> int:
        return self._domain

    def on_shutdown(self, callback: Callable[[], Any]) -> None:
        """Calls ``callback`` once at shutdown; bound methods do not keep their object alive."""
        if not callable(callback):
            raise TypeError("callback should be a callable, got {}", type(callback))
        if hasattr(callback, "__self__") and hasattr(callback, "__func__"):
            reference = weakref.WeakMethod(callback)

            def call() -> None:
                target = reference()
                if target is not None:
                    target()

            callback = call
        with self._lock:
            if self._ok:
                self._callbacks.append(callback)
                return
        callback()

    def shutdown(self) -> None:
        """Ends the context. Raises RCLError if it has ended already."""
        if not self.try_shutdown():
            raise RCLError("failed to shutdown: rcl_shutdown already called on the given context")

    def try_shutdown(self) -> bool:
        """Ends the context if it is not over; True if this call ended it."""
        with self._lock:
            if not self._ok:
                return False
            self._ok = False
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        return True

    def destroy(self) -> None:
        """Deletes the participant, so that peers see this process leave at once."""
        with self._lock:
            graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def __enter__(self) -> Context:
        self.init()
        return self

    def __exit__(self, *error: object) -> None:
        self.try_shutdown()


def shutdown_all() -> None:
    """Ends every context of this process (what a signal does)."""
    for context in list(_contexts):
        context.try_shutdown()


@atexit.register
def _leave() -> None:
    for context in list(_contexts):
        context.try_shutdown()
        context.destroy()
