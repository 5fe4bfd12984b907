"""Nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..interfaces.classes import message_class
from . import names
from .arguments import Arguments, parse
from .callback_groups import CallbackGroup
from .clock import Clock, ROSClock
from .context import Context
from .duration import Duration
from .exceptions import NotInitializedException, NotOffered
from .logging import LoggingSeverity, RcutilsLogger, get_logger
from .node_core import NodeCore
from .node_entities import EntitiesOfNode
from .node_graph import GraphOfNode
from .node_parameters import ParametersOfNode
from .parameter import Parameter
from .parameter_service import ParameterService
from .qos import DurabilityPolicy, QoSProfile, qos_profile_parameter_events
from .time_source import TimeSource
from .utilities import get_default_context

if TYPE_CHECKING:
    from .executors import Executor

_ROSOUT_QOS = QoSProfile(
    depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL, lifespan=Duration(seconds=10)
)


_NOT_OFFERED = frozenset(
    [
        "add_waitable",
        "get_client_names_and_types_by_node",
        "get_node_names_and_namespaces_with_enclaves",
        "get_publisher_names_and_types_by_node",
        "get_publishers_info_by_topic",
        "handle",
        "remove_waitable",
        "get_service_names_and_types_by_node",
        "get_subscriber_names_and_types_by_node",
        "set_descriptor",
        "get_subscriptions_info_by_topic",
        "wait_for_node",
        "waitables",
    ]
)


class Node(EntitiesOfNode, ParametersOfNode, GraphOfNode):
    """A named participant in the graph with topics, timers, services and parameters.

    Raises NotInitializedException before ``rclpy.init()``, and InvalidNodeNameException or
    InvalidNamespaceException for a name that ROS does not allow.
    """

    def __init__(
        self,
        node_name: str,
        *,
        context: Context | None = None,
        cli_args: list[str] | None = None,
        namespace: str | None = None,
        use_global_arguments: bool = True,
        enable_rosout: bool = True,
        start_parameter_services: bool = True,
        parameter_overrides: list[Parameter] | None = None,
        allow_undeclared_parameters: bool = False,
        automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        context = context or get_default_context()
        if not context.ok():
            raise NotInitializedException("cannot create node")
        if enable_logger_service:
            raise NotOffered("Node(enable_logger_service=True)")
        own = parse(["--ros-args", *cli_args]) if cli_args else Arguments()
        shared = context.arguments if use_global_arguments else Arguments()
        namespace = namespace or "/"
        namespace = namespace if namespace.startswith("/") else f"/{namespace}"
        core = NodeCore(context, context.graph, node_name, namespace, own.remaps + shared.remaps)
        self._rclpy_core = core
        self._context = context
        self._logger = get_logger(core.full_name[1:].replace("/", "."))
        self._clock = ROSClock()
        core.graph.add_node(core.full_name)

        values = names.overrides_for(core.full_name, shared.overrides + own.overrides)
        overrides = {name: Parameter(name, None, value) for name, value in values.items()}
        overrides.update({given.name: given for given in parameter_overrides or ()})
        ParametersOfNode.__init__(self, overrides, allow_undeclared_parameters)
        self._parameter_event_publisher = self.create_publisher(
            message_class("rcl_interfaces/msg/ParameterEvent"),
            "/parameter_events",
            qos_profile_parameter_events,
        )
        if enable_rosout:
            self._logger._sink = self.__rosout()
        if automatically_declare_parameters_from_overrides:
            describe = message_class("rcl_interfaces/msg/ParameterDescriptor")
            for name, parameter in overrides.items():
                self.declare_parameter(name, parameter.value, describe(dynamic_typing=True))
        self._time_source = TimeSource(self, self._clock)
        if start_parameter_services:
            self._parameter_service = ParameterService(self)

    def __rosout(self) -> Any:
        """Sends log lines to /rosout."""
        log = message_class("rcl_interfaces/msg/Log")
        publisher = self.create_publisher(log, "/rosout", _ROSOUT_QOS)

        def send(severity: LoggingSeverity, name: str, text: str) -> None:
            if self._context.ok() and not self._rclpy_core.destroyed:
                stamp = self._clock.now().to_msg()
                publisher.publish(log(stamp=stamp, level=int(severity), name=name, msg=text))

        return send

    def __getattr__(self, name: str) -> Any:
        if name in _NOT_OFFERED:
            raise NotOffered(f"Node.{name}")
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def get_name(self) -> str:
        return self._rclpy_core.name

    def get_namespace(self) -> str:
        return self._rclpy_core.namespace

    def get_fully_qualified_name(self) -> str:
        return self._rclpy_core.full_name

    def get_logger(self) -> RcutilsLogger:
        return self._logger

    def get_clock(self) -> Clock:
        return self._clock

    @property
    def context(self) -> Context:
        return self._context

    @property
    def default_callback_group(self) -> CallbackGroup:
        return self._rclpy_core.default_group

    @property
    def executor(self) -> Executor | None:
        return self._rclpy_core.executor

    @executor.setter
    def executor(self, new_executor: Executor | None) -> None:
        """Moves the node to an executor; it leaves the one it was in."""
        old = self._rclpy_core.executor
        if old is new_executor:
            return
        if old is not None:
            old.remove_node(self)
        if new_executor is not None:
            self._rclpy_core.join(new_executor)
            new_executor.add_node(self)

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        return self._rclpy_core.resolve(topic, service=False, only_expand=only_expand)

    def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
        return self._rclpy_core.resolve(service, service=True, only_expand=only_expand)

    def destroy_node(self) -> None:
        """Deletes all entities; the node leaves its executor."""
        core = self._rclpy_core
        if core.destroyed:
            return
        core.destroyed = True
        if core.executor is not None:
            core.executor.remove_node(self)
        for entity in list(core.entities):
            core.remove(entity)
            if hasattr(entity, "_delete"):
                entity._delete()
        core.graph.remove_node(core.full_name)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *error: object) -> None:
        self.destroy_node()
