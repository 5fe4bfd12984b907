"""What a node keeps behind its API.

In an object of its own, so that attributes of a user's node class (``self._lock``,
``self._entities``) cannot clash with ours.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from . import names
from .arguments import Remap
from .callback_groups import MutuallyExclusiveCallbackGroup
from .exceptions import InvalidHandle

if TYPE_CHECKING:
    from ..dds.graph import Graph
    from .context import Context
    from .executors import Executor


class NodeCore:
    """Name, remapping rules, entities and executor of one node."""

    def __init__(
        self, context: Context, graph: Graph, name: str, namespace: str, remaps: list[Remap]
    ) -> None:
        names.validate_node_name(name)
        names.validate_namespace(namespace)
        self.context, self.graph, self.remaps = context, graph, remaps
        self.participant = graph.participant
        self.name, self.namespace = names.remap_node(name, namespace, remaps)
        names.validate_node_name(self.name)
        names.validate_namespace(self.namespace)
        self.full_name = f"{self.namespace.rstrip('/')}/{self.name}"
        self.default_group = MutuallyExclusiveCallbackGroup()
        self.executor: Executor | None = None
        self.entities: list[Any] = []
        self.destroyed = False
        self._lock = threading.Lock()

    def check_alive(self) -> None:
        if self.destroyed:
            raise InvalidHandle(f"node '{self.full_name}' is destroyed")

    def resolve(self, name: str, *, service: bool, only_expand: bool = False) -> str:
        """The full name of a topic or service, remapped."""
        full = names.expand(name, self.name, self.namespace, service=service)
        if only_expand:
            return full
        return names.remap_name(full, self.name, self.namespace, self.remaps, service=service)

    def add(self, entity: Any) -> None:
        """Registers an entity; executors wait for those with a ``wait_handle``."""
        with self._lock:
            self.entities.append(entity)
        if hasattr(entity, "wait_handle"):
            entity.callback_group.add_entity(entity)
            if self.executor is not None:
                self.executor._attach(entity)

    def remove(self, entity: Any) -> bool:
        with self._lock:
            if not any(known is entity for known in self.entities):
                return False
            self.entities = [known for known in self.entities if known is not entity]
        if hasattr(entity, "wait_handle"):
            entity.callback_group.remove_entity(entity)
            if self.executor is not None:
                self.executor._detach(entity)
        return True

    def join(self, executor: Executor) -> None:
        self.executor = executor
        for entity in list(self.entities):
            if hasattr(entity, "wait_handle"):
                executor._attach(entity)

    def leave(self, executor: Executor) -> None:
        if self.executor is executor:
            self.executor = None
        for entity in list(self.entities):
            if hasattr(entity, "wait_handle"):
                executor._detach(entity)
