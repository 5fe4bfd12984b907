"""The half of a node that looks at the other nodes and topics of the domain."""

from __future__ import annotations

from .node_core import NodeCore


class GraphOfNode:
    """What is discovered; empty answers mean "not yet"."""

    _rclpy_core: NodeCore

    def get_topic_names_and_types(self, no_demangle: bool = False) -> list[tuple[str, list[str]]]:
        return self._rclpy_core.graph.names_and_types("rt", "", raw=no_demangle)

    def get_service_names_and_types(self) -> list[tuple[str, list[str]]]:
        return self._rclpy_core.graph.names_and_types("rq", "Request")

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return self._rclpy_core.graph.nodes()

    def get_node_names(self) -> list[str]:
        return [name for name, _ in self.get_node_names_and_namespaces()]

    def get_fully_qualified_node_names(self) -> list[str]:
        return [
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in self.get_node_names_and_namespaces()
        ]

    def count_publishers(self, topic_name: str) -> int:
        full = self._rclpy_core.resolve(topic_name, service=False)
        return self._rclpy_core.graph.count(f"rt{full}", writers=True)

    def count_subscribers(self, topic_name: str) -> int:
        full = self._rclpy_core.resolve(topic_name, service=False)
        return self._rclpy_core.graph.count(f"rt{full}", writers=False)

    def count_services(self, service_name: str) -> int:
        full = self._rclpy_core.resolve(service_name, service=True)
        return self._rclpy_core.graph.count(f"rq{full}Request", writers=False)

    def count_clients(self, service_name: str) -> int:
        full = self._rclpy_core.resolve(service_name, service=True)
        return self._rclpy_core.graph.count(f"rq{full}Request", writers=True)
